// Windows over up to three spatial dimensions (missing ones have size 1): columns for convolutions, and pooling.
struct WindowArgs {
    i64 images, channels, in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
    i64 x_image, x_channel, x_step[3];      // strides of the large side
    i64 y_image, y_channel, y_step[3];      // of the small side (columns: see im2col)
    i64 y_kernel;                           // columns: from one place of the window to the next
    char *x, *y;
    i64 *index;
    i64 index_image, index_channel, index_step_[3];
    i64 dtype, y_dtype, include_padding, divisor;
};
struct Window { i64 image, channel, at[3]; };
__device__ inline Window window_of(const WindowArgs &a, const i64 *size, i64 i) {
    Window w;
    for (int d = 2; d >= 0; d--) {
        w.at[d] = i % size[d];
        i /= size[d];
    }
    w.channel = i % a.channels;
    w.image = i / a.channels;
    return w;
}
// The element of the large side that the window at `out` sees at `place`; false when it lies outside.
__device__ inline bool seen(const WindowArgs &a, const Window &w, const i64 *place, i64 *at) {
    for (int d = 0; d < 3; d++) {
        at[d] = w.at[d] * a.stride[d] - a.padding[d] + place[d] * a.dilation[d];
        if (at[d] < 0 || at[d] >= a.in[d]) return false;
    }
    return true;
}
// One thread a (image, channel, output place): its column of window elements.
template <class C, int DT> __device__ inline void im2col(const WindowArgs &a) {
    i64 n = a.images * a.channels * a.out[0] * a.out[1] * a.out[2];
    for (i64 i = first_index(); i < n; i += index_step()) {
        Window w = window_of(a, a.out, i);
        i64 x = w.image * a.x_image + w.channel * a.x_channel;
        i64 y = w.image * a.y_image + w.channel * a.y_channel + ((w.at[0] * a.out[1] + w.at[1]) * a.out[2] + w.at[2]);
        i64 place[3], at[3];
        for (place[0] = 0; place[0] < a.kernel[0]; place[0]++)
            for (place[1] = 0; place[1] < a.kernel[1]; place[1]++)
                for (place[2] = 0; place[2] < a.kernel[2]; place[2]++, y += a.y_kernel) {
                    C v = C(0);
                    if (seen(a, w, place, at))
                        v = load_at<C, DT>(a.x, a.dtype, x + at[0] * a.x_step[0] + at[1] * a.x_step[1] + at[2] * a.x_step[2]);
                    store_at<C, DT>(a.y, a.dtype, y, v);
                }
    }
}
// One thread an element of the large side: the sum of the columns' elements that were copied from it, in window order.
template <class C, int DT> __device__ inline void col2im(const WindowArgs &a) {
    i64 n = a.images * a.channels * a.in[0] * a.in[1] * a.in[2];
    for (i64 i = first_index(); i < n; i += index_step()) {
        Window w = window_of(a, a.in, i);
        i64 y0 = w.image * a.y_image + w.channel * a.y_channel, y = y0;
        C sum = C(0);
        i64 place[3];
        for (place[0] = 0; place[0] < a.kernel[0]; place[0]++)
            for (place[1] = 0; place[1] < a.kernel[1]; place[1]++)
                for (place[2] = 0; place[2] < a.kernel[2]; place[2]++, y += a.y_kernel) {
                    i64 o = 0;
                    bool inside = true;
                    for (int d = 0; d < 3; d++) {
                        i64 p = w.at[d] + a.padding[d] - place[d] * a.dilation[d], q = p / a.stride[d];
                        inside = inside && p >= 0 && q * a.stride[d] == p && q < a.out[d];
                        o = o * a.out[d] + q;
                    }
                    if (inside) sum = sum + load_at<C, -1>(a.y, a.y_dtype, y + o);
                }
        store_at<C, DT>(a.x, a.dtype,
                        w.image * a.x_image + w.channel * a.x_channel + w.at[0] * a.x_step[0] + w.at[1] * a.x_step[1] + w.at[2] * a.x_step[2], sum);
    }
}
template <class C, int DT> __device__ inline void max_pool(const WindowArgs &a) {
    i64 n = a.images * a.channels * a.out[0] * a.out[1] * a.out[2];
    for (i64 i = first_index(); i < n; i += index_step()) {
        Window w = window_of(a, a.out, i);
        i64 x = w.image * a.x_image + w.channel * a.x_channel, best_at = -1, place[3], at[3];
        C best = C(0);
        for (place[0] = 0; place[0] < a.kernel[0]; place[0]++)
            for (place[1] = 0; place[1] < a.kernel[1]; place[1]++)
                for (place[2] = 0; place[2] < a.kernel[2]; place[2]++) {
                    if (!seen(a, w, place, at)) continue;
                    C v = load_at<C, DT>(a.x, a.dtype, x + at[0] * a.x_step[0] + at[1] * a.x_step[1] + at[2] * a.x_step[2]);
                    if (best_at < 0 || v > best || v != v) {
                        best = v;
                        best_at = (at[0] * a.in[1] + at[1]) * a.in[2] + at[2];
                    }
                }
        store_at<C, DT>(a.y, a.dtype, w.image * a.y_image + w.channel * a.y_channel + w.at[0] * a.y_step[0] + w.at[1] * a.y_step[1] + w.at[2] * a.y_step[2], best);
        if (a.index) a.index[w.image * a.index_image + w.channel * a.index_channel + w.at[0] * a.index_step_[0] + w.at[1] * a.index_step_[1] + w.at[2] * a.index_step_[2]] = best_at;
    }
}
// Elements of the window, padding counted when `include_padding`: a window may hang over the padding's end.
__device__ inline i64 window_count(const WindowArgs &a, const Window &w) {
    if (a.divisor) return a.divisor;
    i64 count = 1;
    for (int d = 0; d < 3; d++) {
        i64 begin = w.at[d] * a.stride[d] - a.padding[d], end = begin + a.kernel[d], last = a.in[d] + a.padding[d];
        if (end > last) end = last;
        if (!a.include_padding) {
            if (begin < 0) begin = 0;
            if (end > a.in[d]) end = a.in[d];
        }
        count *= end - begin;
    }
    return count;
}
__device__ inline float m_mean(float sum, i64 n) { return sum / (float)n; }
__device__ inline double m_mean(double sum, i64 n) { return sum / (double)n; }
__device__ inline i64 m_mean(i64 sum, i64 n) { return m_trunc_div(sum, n); }
template <class C, int DT> __device__ inline void avg_pool(const WindowArgs &a) {
    i64 n = a.images * a.channels * a.out[0] * a.out[1] * a.out[2];
    for (i64 i = first_index(); i < n; i += index_step()) {
        Window w = window_of(a, a.out, i);
        i64 x = w.image * a.x_image + w.channel * a.x_channel, place[3], at[3];
        C sum = C(0);
        for (place[0] = 0; place[0] < a.kernel[0]; place[0]++)
            for (place[1] = 0; place[1] < a.kernel[1]; place[1]++)
                for (place[2] = 0; place[2] < a.kernel[2]; place[2]++)
                    if (seen(a, w, place, at))
                        sum = sum + load_at<C, DT>(a.x, a.dtype, x + at[0] * a.x_step[0] + at[1] * a.x_step[1] + at[2] * a.x_step[2]);
        i64 count = window_count(a, w);
        store_at<C, DT>(a.y, a.dtype, w.image * a.y_image + w.channel * a.y_channel + w.at[0] * a.y_step[0] + w.at[1] * a.y_step[1] + w.at[2] * a.y_step[2], m_mean(sum, count));
    }
}
// One thread an element of the large side: the windows that saw it, in order.
template <class C, int DT> __device__ inline void avg_pool_grad(const WindowArgs &a) {
    i64 n = a.images * a.channels * a.in[0] * a.in[1] * a.in[2];
    for (i64 i = first_index(); i < n; i += index_step()) {
        Window e = window_of(a, a.in, i), w = e;
        i64 begin[3], end[3];
        for (int d = 0; d < 3; d++) {
            i64 p = e.at[d] + a.padding[d];
            begin[d] = p < a.kernel[d] ? 0 : (p - a.kernel[d]) / a.stride[d] + 1;
            end[d] = p / a.stride[d] + 1;
            if (end[d] > a.out[d]) end[d] = a.out[d];
        }
        i64 y = e.image * a.y_image + e.channel * a.y_channel;
        C sum = C(0);
        for (w.at[0] = begin[0]; w.at[0] < end[0]; w.at[0]++)
            for (w.at[1] = begin[1]; w.at[1] < end[1]; w.at[1]++)
                for (w.at[2] = begin[2]; w.at[2] < end[2]; w.at[2]++)
                    sum = sum + m_mean(load_at<C, DT>(a.y, a.dtype, y + w.at[0] * a.y_step[0] + w.at[1] * a.y_step[1] + w.at[2] * a.y_step[2]), window_count(a, w));
        store_at<C, DT>(a.x, a.dtype, e.image * a.x_image + e.channel * a.x_channel + e.at[0] * a.x_step[0] + e.at[1] * a.x_step[1] + e.at[2] * a.x_step[2], sum);
    }
}
