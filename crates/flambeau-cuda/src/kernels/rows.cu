// Softmax, layer normalisation and cross entropy: a block of 128 threads a row, or one thread for short rows.  THREADS is
// 1 or 128; `room` is shared memory for 128 values.
template <class C, int THREADS, class F> __device__ inline C row_combine(C v, char *room, F f) {
    if (THREADS == 1) return v;
    C *shared = (C *)room;
    __syncthreads();
    shared[threadIdx.x] = v;
    __syncthreads();
    for (int half = THREADS / 2; half; half >>= 1) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}
struct Largest { template <class C> __device__ inline C operator()(C a, C b) const { return m_max(a, b); } };
struct Plus { template <class C> __device__ inline C operator()(C a, C b) const { return a + b; } };
template <int THREADS> __device__ inline i64 first_row() { return THREADS == 1 ? first_index() : (i64)blockIdx.x; }
template <int THREADS> __device__ inline i64 row_step() { return THREADS == 1 ? index_step() : (i64)gridDim.x; }
template <int THREADS> __device__ inline i64 lane() { return THREADS == 1 ? 0 : (i64)threadIdx.x; }

struct RowArgs { Walk rows; i64 n; i64 along[3]; i64 log; Operand x, y, out; };
template <class C, int DT, int THREADS> __device__ inline void softmax(const RowArgs &a, char *room) {
    for (i64 r = first_row<THREADS>(); r < a.rows.n; r += row_step<THREADS>()) {
        Coordinates at = unravel(a.rows, r);
        i64 x = offset(at, a.rows, a.x.stride), o = offset(at, a.rows, a.out.stride);
        C top = -Limits<C>::infinity();
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) top = m_max(top, load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]));
        top = row_combine<C, THREADS>(top, room, Largest());
        C sum = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) sum = sum + m_exp(load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]) - top);
        sum = row_combine<C, THREADS>(sum, room, Plus());
        C shift = m_log(sum);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C d = load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]) - top;
            store_at<C, -1>(a.out.p, a.out.dtype, o + i * a.along[2], a.log ? d - shift : m_exp(d) / sum);
        }
    }
}
template <class C, int DT, int THREADS> __device__ inline void softmax_grad(const RowArgs &a, char *room) {
    for (i64 r = first_row<THREADS>(); r < a.rows.n; r += row_step<THREADS>()) {
        Coordinates at = unravel(a.rows, r);
        i64 x = offset(at, a.rows, a.x.stride), y = offset(at, a.rows, a.y.stride), o = offset(at, a.rows, a.out.stride);
        C sum = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C g = load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]);
            sum = sum + (a.log ? g : g * load_at<C, DT>(a.y.p, a.y.dtype, y + i * a.along[1]));
        }
        sum = row_combine<C, THREADS>(sum, room, Plus());
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C g = load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]), v = load_at<C, DT>(a.y.p, a.y.dtype, y + i * a.along[1]);
            store_at<C, -1>(a.out.p, a.out.dtype, o + i * a.along[2], a.log ? g - m_exp(v) * sum : v * (g - sum));
        }
    }
}

struct Matrix2 { char *p; i64 dtype, row, column; };
struct NormArgs { i64 rows, n; double eps; Matrix2 x, g, out, mean, rstd, weight, bias; };
template <class C> __device__ inline C read(const Matrix2 &m, i64 r, i64 c) { return load_at<C, -1>(m.p, m.dtype, r * m.row + c * m.column); }
template <class C, int DT> __device__ inline C read_as(const Matrix2 &m, i64 r, i64 c) { return load_at<C, DT>(m.p, m.dtype, r * m.row + c * m.column); }
template <class C, int DT, int THREADS> __device__ inline void layer_norm(const NormArgs &a, char *room) {
    for (i64 r = first_row<THREADS>(); r < a.rows; r += row_step<THREADS>()) {
        C sum = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) sum = sum + read_as<C, DT>(a.x, r, i);
        C mean = row_combine<C, THREADS>(sum, room, Plus()) / C(a.n);
        C squares = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C d = read_as<C, DT>(a.x, r, i) - mean;
            squares = squares + d * d;
        }
        C rstd = C(1) / m_sqrt(row_combine<C, THREADS>(squares, room, Plus()) / C(a.n) + C(a.eps));
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C v = (read_as<C, DT>(a.x, r, i) - mean) * rstd;
            if (a.weight.p) v = v * read<C>(a.weight, 0, i);
            if (a.bias.p) v = v + read<C>(a.bias, 0, i);
            store_at<C, DT>(a.out.p, a.out.dtype, r * a.out.row + i * a.out.column, v);
        }
        if (lane<THREADS>() == 0) {
            store_at<C, -1>(a.mean.p, a.mean.dtype, r * a.mean.row, mean);
            store_at<C, -1>(a.rstd.p, a.rstd.dtype, r * a.rstd.row, rstd);
        }
    }
}
// gx = rstd (h - mean(h) - z mean(h z)) with h = g weight and z = (x - mean) rstd.
template <class C, int DT, int THREADS> __device__ inline void layer_norm_grad(const NormArgs &a, char *room) {
    for (i64 r = first_row<THREADS>(); r < a.rows; r += row_step<THREADS>()) {
        C mean = read<C>(a.mean, r, 0), rstd = read<C>(a.rstd, r, 0), sum = C(0), dot = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C h = read_as<C, DT>(a.g, r, i);
            if (a.weight.p) h = h * read<C>(a.weight, 0, i);
            sum = sum + h;
            dot = dot + h * ((read_as<C, DT>(a.x, r, i) - mean) * rstd);
        }
        sum = row_combine<C, THREADS>(sum, room, Plus()) / C(a.n);
        dot = row_combine<C, THREADS>(dot, room, Plus()) / C(a.n);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) {
            C h = read_as<C, DT>(a.g, r, i), z = (read_as<C, DT>(a.x, r, i) - mean) * rstd;
            if (a.weight.p) h = h * read<C>(a.weight, 0, i);
            store_at<C, DT>(a.out.p, a.out.dtype, r * a.out.row + i * a.out.column, rstd * (h - sum - z * dot));
        }
    }
}

struct LossArgs { i64 rows, n, ignore; Matrix2 x, target, loss, lse, g, out; u64 *error; };
template <class C, int DT, int THREADS> __device__ inline void cross_entropy(const LossArgs &a, char *room) {
    for (i64 r = first_row<THREADS>(); r < a.rows; r += row_step<THREADS>()) {
        C top = -Limits<C>::infinity(), sum = C(0);
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) top = m_max(top, read_as<C, DT>(a.x, r, i));
        top = row_combine<C, THREADS>(top, room, Largest());
        for (i64 i = lane<THREADS>(); i < a.n; i += THREADS) sum = sum + m_exp(read_as<C, DT>(a.x, r, i) - top);
        sum = row_combine<C, THREADS>(sum, room, Plus());
        if (lane<THREADS>() != 0) continue;
        C lse = top + m_log(sum), loss = C(0);
        i64 t = ((const i64 *)a.target.p)[r * a.target.row];
        if (t != a.ignore) {
            if (t >= 0 && t < a.n) {
                loss = lse - read_as<C, DT>(a.x, r, t);
            } else if (atomicCAS(a.error, (u64)0, (u64)1) == 0) {
                a.error[1] = (u64)t;
                a.error[2] = (u64)-1;
                a.error[3] = (u64)a.n;
            }
        }
        store_at<C, -1>(a.loss.p, a.loss.dtype, r * a.loss.row, loss);
        store_at<C, -1>(a.lse.p, a.lse.dtype, r * a.lse.row, lse);
    }
}
template <class C, int DT> __device__ inline void cross_entropy_grad(const LossArgs &a) {
    for (i64 e = first_index(); e < a.rows * a.n; e += index_step()) {
        i64 r = e / a.n, i = e % a.n, t = ((const i64 *)a.target.p)[r * a.target.row];
        C v = C(0);
        if (t != a.ignore) {
            v = m_exp(read_as<C, DT>(a.x, r, i) - read<C>(a.lse, r, 0));
            v = (i == t ? v - C(1) : v) * read<C>(a.g, r, 0);
        }
        store_at<C, DT>(a.out.p, a.out.dtype, r * a.out.row + i * a.out.column, v);
    }
}
