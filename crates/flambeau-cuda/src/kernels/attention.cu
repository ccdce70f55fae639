// Attention by tiles of THREADS keys (or queries), a block a row; scores never exist as a whole.  In a tile each thread first
// scores one key, then owns every THREADS-th feature of the row's result, so that every sum runs in one order.
// After Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", 2022.
enum { FEATURES = 4 };
struct Heads { char *p; i64 dtype; i64 stride[4]; };
struct AttentionArgs {
    i64 n, h, l, s, e, f, causal;
    double scale;
    Heads q, k, v, g, out, mask, lse, gq, gk, gv;
};
struct AttentionRow { i64 n, h, i; };
__device__ inline AttentionRow attention_row(const AttentionArgs &a, i64 r, i64 rows) {
    AttentionRow at;
    at.i = r % rows;
    at.h = r / rows % a.h;
    at.n = r / rows / a.h;
    return at;
}
__device__ inline i64 head_row(const Heads &x, AttentionRow at, i64 i) { return at.n * x.stride[0] + at.h * x.stride[1] + i * x.stride[2]; }
template <class C, int DT> __device__ inline C dot_rows(const Heads &x, i64 xo, const Heads &y, i64 yo, i64 n) {
    C sum = C(0);
    for (i64 i = 0; i < n; i++)
        sum = FMA(load_at<C, DT>(x.p, x.dtype, xo + i * x.stride[3]), load_at<C, DT>(y.p, y.dtype, yo + i * y.stride[3]), sum);
    return sum;
}
// The scaled and masked score of query `i` and key `j`; -inf where the key is not seen.
template <class C, int DT> __device__ inline C attention_score(const AttentionArgs &a, AttentionRow at, i64 i, i64 j) {
    if (a.causal && j > i) return -Limits<C>::infinity();
    C score = dot_rows<C, DT>(a.q, head_row(a.q, at, i), a.k, head_row(a.k, at, j), a.e) * C(a.scale);
    if (a.mask.p) {
        i64 o = head_row(a.mask, at, i) + j * a.mask.stride[3];
        if (a.mask.dtype != BOOL) score = score + load_at<C, -1>(a.mask.p, a.mask.dtype, o);
        else if (!((const u8 *)a.mask.p)[o]) score = -Limits<C>::infinity();
    }
    return score;
}
template <class C, int THREADS, class F> __device__ inline C block_combine(C v, C *shared, F f) {
    __syncthreads();
    shared[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half; half >>= 1) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}
struct AttentionTop { template <class C> __device__ inline C operator()(C a, C b) const { return m_max(a, b); } };
struct AttentionSum { template <class C> __device__ inline C operator()(C a, C b) const { return a + b; } };

template <class C, int DT, int THREADS> __device__ inline void attention(const AttentionArgs &a, char *room) {
    C *shared = (C *)room, *weight = shared + THREADS;
    for (i64 r = blockIdx.x; r < a.n * a.h * a.l; r += gridDim.x) {
        AttentionRow at = attention_row(a, r, a.l);
        C top = -Limits<C>::infinity(), sum = C(0), result[FEATURES] = {C(0), C(0), C(0), C(0)};
        i64 seen = a.causal && at.i + 1 < a.s ? at.i + 1 : a.s;
        for (i64 first = 0; first < seen; first += THREADS) {
            i64 j = first + threadIdx.x, keys = seen - first < THREADS ? seen - first : THREADS;
            C score = j < seen ? attention_score<C, DT>(a, at, at.i, j) : -Limits<C>::infinity();
            C now = m_max(top, block_combine<C, THREADS>(score, shared, AttentionTop()));
            // Nothing is seen so far: every weight is zero.
            bool none = now == -Limits<C>::infinity();
            C factor = none ? C(1) : m_exp(top - now), w = none ? C(0) : m_exp(score - now);
            weight[threadIdx.x] = w;
            sum = sum * factor + block_combine<C, THREADS>(w, shared, AttentionSum());
            top = now;
            for (int c = 0; c < FEATURES; c++) {
                i64 f = threadIdx.x + (i64)c * THREADS;
                if (f >= a.f) break;
                C part = result[c] * factor;
                for (i64 t = 0; t < keys; t++)
                    part = FMA(weight[t], load_at<C, DT>(a.v.p, a.v.dtype, head_row(a.v, at, first + t) + f * a.v.stride[3]), part);
                result[c] = part;
            }
            __syncthreads();
        }
        for (int c = 0; c < FEATURES; c++) {
            i64 f = threadIdx.x + (i64)c * THREADS;
            if (f < a.f) store_at<C, DT>(a.out.p, a.out.dtype, head_row(a.out, at, at.i) + f * a.out.stride[3], sum == C(0) ? C(0) : result[c] / sum);
        }
        if (threadIdx.x == 0)
            store_at<C, -1>(a.lse.p, a.lse.dtype, head_row(a.lse, at, at.i), sum == C(0) ? -Limits<C>::infinity() : top + m_log(sum));
    }
}

// The weight of key `j` in the result of query `i`, and the slope of the loss along the unscaled score.
template <class C, int DT> __device__ inline void attention_slope(const AttentionArgs &a, AttentionRow at, i64 i, i64 j, C *weight, C *slope) {
    C lse = load_at<C, -1>(a.lse.p, a.lse.dtype, head_row(a.lse, at, i));
    *weight = *slope = C(0);
    if (lse == -Limits<C>::infinity() || (a.causal && j > i)) return;
    *weight = m_exp(attention_score<C, DT>(a, at, i, j) - lse);
    i64 g = head_row(a.g, at, i);
    C along = dot_rows<C, DT>(a.g, g, a.v, head_row(a.v, at, j), a.f) - dot_rows<C, DT>(a.g, g, a.out, head_row(a.out, at, i), a.f);
    *slope = *weight * along * C(a.scale);
}
// Adds a tile's terms to the features of a row that this thread owns.
template <class C, int DT, int THREADS> __device__ inline void attention_gather(const Heads &x, AttentionRow at, const C *factor, i64 first, i64 count, i64 features, C *result) {
    for (int c = 0; c < FEATURES; c++) {
        i64 f = threadIdx.x + (i64)c * THREADS;
        if (f >= features) break;
        for (i64 t = 0; t < count; t++)
            result[c] = FMA(factor[t], load_at<C, DT>(x.p, x.dtype, head_row(x, at, first + t) + f * x.stride[3]), result[c]);
    }
}
template <class C, int DT, int THREADS> __device__ inline void attention_keep(const Heads &x, AttentionRow at, i64 features, const C *result) {
    for (int c = 0; c < FEATURES; c++) {
        i64 f = threadIdx.x + (i64)c * THREADS;
        if (f < features) store_at<C, DT>(x.p, x.dtype, head_row(x, at, at.i) + f * x.stride[3], result[c]);
    }
}
template <class C, int DT, int THREADS> __device__ inline void attention_query_grad(const AttentionArgs &a, char *room) {
    C *slope = (C *)room;
    for (i64 r = blockIdx.x; r < a.n * a.h * a.l; r += gridDim.x) {
        AttentionRow at = attention_row(a, r, a.l);
        C result[FEATURES] = {C(0), C(0), C(0), C(0)}, weight;
        for (i64 first = 0; first < a.s; first += THREADS) {
            i64 keys = a.s - first < THREADS ? a.s - first : THREADS;
            if ((i64)threadIdx.x < keys) attention_slope<C, DT>(a, at, at.i, first + threadIdx.x, &weight, &slope[threadIdx.x]);
            __syncthreads();
            attention_gather<C, DT, THREADS>(a.k, at, slope, first, keys, a.e, result);
            __syncthreads();
        }
        attention_keep<C, DT, THREADS>(a.gq, at, a.e, result);
    }
}
template <class C, int DT, int THREADS> __device__ inline void attention_key_grad(const AttentionArgs &a, char *room) {
    C *slope = (C *)room, *weight = slope + THREADS;
    for (i64 r = blockIdx.x; r < a.n * a.h * a.s; r += gridDim.x) {
        AttentionRow at = attention_row(a, r, a.s);
        C key[FEATURES] = {C(0), C(0), C(0), C(0)}, value[FEATURES] = {C(0), C(0), C(0), C(0)};
        for (i64 first = 0; first < a.l; first += THREADS) {
            i64 queries = a.l - first < THREADS ? a.l - first : THREADS;
            if ((i64)threadIdx.x < queries) attention_slope<C, DT>(a, at, first + threadIdx.x, at.i, &weight[threadIdx.x], &slope[threadIdx.x]);
            __syncthreads();
            attention_gather<C, DT, THREADS>(a.q, at, slope, first, queries, a.e, key);
            attention_gather<C, DT, THREADS>(a.g, at, weight, first, queries, a.f, value);
            __syncthreads();
        }
        attention_keep<C, DT, THREADS>(a.gk, at, a.e, key);
        attention_keep<C, DT, THREADS>(a.gv, at, a.f, value);
    }
}
