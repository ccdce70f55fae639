// Optimizer steps over many tensors in one launch: blockIdx.y chooses the tensor.  Numbers come in double.
enum { TENSORS = 32 };
struct StepArgs {
    char *p[5][TENSORS];
    i64 n[TENSORS];
    i64 dtype, flags;                  // flags: 1 nesterov, 2 maximize, 4 first, 8 decoupled, 16 amsgrad, 32 momentum
    double lr, a, b, eps, decay, correction1, correction2;
};
template <class C, int DT> __device__ inline void sgd(const StepArgs &s) {
    int t = blockIdx.y;
    for (i64 i = first_index(); i < s.n[t]; i += index_step()) {
        C p = load_at<C, DT>(s.p[0][t], s.dtype, i), g = load_at<C, DT>(s.p[1][t], s.dtype, i);
        if (s.flags & 2) g = -g;
        if (s.decay != 0) g = g + C(s.decay) * p;
        if (s.flags & 32) {
            C m = s.flags & 4 ? g : C(s.a) * load_at<C, DT>(s.p[2][t], s.dtype, i) + C(1 - s.b) * g;
            store_at<C, DT>(s.p[2][t], s.dtype, i, m);
            g = s.flags & 1 ? g + C(s.a) * m : m;
        }
        store_at<C, DT>(s.p[0][t], s.dtype, i, p - C(s.lr) * g);
    }
}
template <class C, int DT> __device__ inline void adam(const StepArgs &s) {
    int t = blockIdx.y;
    for (i64 i = first_index(); i < s.n[t]; i += index_step()) {
        C p = load_at<C, DT>(s.p[0][t], s.dtype, i), g = load_at<C, DT>(s.p[1][t], s.dtype, i);
        C m = load_at<C, DT>(s.p[2][t], s.dtype, i), v = load_at<C, DT>(s.p[3][t], s.dtype, i);
        if (s.flags & 2) g = -g;
        if (s.decay != 0) {
            if (s.flags & 8) p = p * C(1 - s.lr * s.decay);
            else g = g + C(s.decay) * p;
        }
        m = m + (g - m) * C(1 - s.a);
        v = v * C(s.b) + C(1 - s.b) * g * g;
        store_at<C, DT>(s.p[2][t], s.dtype, i, m);
        store_at<C, DT>(s.p[3][t], s.dtype, i, v);
        C top = v;
        if (s.flags & 16) {
            top = m_max(load_at<C, DT>(s.p[4][t], s.dtype, i), v);
            store_at<C, DT>(s.p[4][t], s.dtype, i, top);
        }
        C denominator = m_sqrt(top) / C(s.correction2) + C(s.eps);
        store_at<C, DT>(s.p[0][t], s.dtype, i, p - C(s.lr / s.correction1) * (m / denominator));
    }
}
