// Running combinations along one dimension, in three passes over parts of fixed size: combine each part, run over the
// parts, run within each part from what came before it.
struct ScanArgs {
    Walk outer;
    i64 n, part, parts, phase;
    char *partial;
    i64 along[3];
    Operand x, out, index;
};
template <class C> struct ScanSum {
    C v;
    static __device__ inline ScanSum empty() { ScanSum s; s.v = C(0); return s; }
    __device__ inline void push(C x, i64) { v = v + x; }
    __device__ inline void merge(const ScanSum &o) { v = v + o.v; }
    static const bool INDEXED = false;
    i64 i;
    __device__ inline C value() const { return v; }
};
template <class C> struct ScanProd {
    C v;
    static __device__ inline ScanProd empty() { ScanProd s; s.v = C(1); return s; }
    __device__ inline void push(C x, i64) { v = v * x; }
    __device__ inline void merge(const ScanProd &o) { v = v * o.v; }
    static const bool INDEXED = false;
    i64 i;
    __device__ inline C value() const { return v; }
};
// The last of equals; NaN stays once it has come.
template <class C, bool LARGEST> struct ScanExtreme {
    C v;
    i64 i;
    static __device__ inline ScanExtreme empty() { ScanExtreme s; s.v = C(0); s.i = -1; return s; }
    __device__ inline void push(C x, i64 index) { ScanExtreme o; o.v = x; o.i = index; merge(o); }
    __device__ inline void merge(const ScanExtreme &o) {
        if (o.i < 0) return;
        if (i < 0 || o.v != o.v || (v == v && (LARGEST ? o.v >= v : o.v <= v))) *this = o;
    }
    static const bool INDEXED = true;
    __device__ inline C value() const { return v; }
};
// log Σ exp as a running maximum and a sum scaled by it.
template <class C> struct ScanLogSumExp {
    C top, sum;
    static __device__ inline ScanLogSumExp empty() { ScanLogSumExp s; s.top = -Limits<C>::infinity(); s.sum = C(0); return s; }
    __device__ inline void push(C x, i64) { ScanLogSumExp o; o.top = x; o.sum = C(1); merge(o); }
    __device__ inline void merge(const ScanLogSumExp &o) {
        if (o.sum == C(0)) return;
        if (sum == C(0)) { *this = o; return; }
        C m = m_max(top, o.top);
        if (m_isinf(m)) {
            sum = m > C(0) ? C(1) : sum + o.sum;
        } else {
            sum = sum * m_exp(top - m) + o.sum * m_exp(o.top - m);
        }
        top = m;
    }
    static const bool INDEXED = false;
    i64 i;
    __device__ inline C value() const { return m_isinf(top) ? top : top + m_log(sum); }
};
template <class Acc, class C, int DT> __device__ inline void scan(const ScanArgs &a) {
    Acc *partial = (Acc *)a.partial;
    i64 work = a.phase == 1 ? a.outer.n : a.outer.n * a.parts;
    for (i64 w = first_index(); w < work; w += index_step()) {
        i64 o = w % a.outer.n, part = w / a.outer.n;
        if (a.phase == 1) {
            // Exclusive: what comes before each part.
            Acc before = Acc::empty();
            for (i64 p = 0; p < a.parts; p++) {
                Acc mine = partial[p * a.outer.n + o];
                partial[p * a.outer.n + o] = before;
                before.merge(mine);
            }
            continue;
        }
        i64 begin = part * a.part, end = begin + a.part;
        if (end > a.n) end = a.n;
        Coordinates at = unravel(a.outer, o);
        i64 x = offset(at, a.outer, a.x.stride), y = offset(at, a.outer, a.out.stride), z = offset(at, a.outer, a.index.stride);
        Acc acc = Acc::empty();
        if (a.phase == 2 && a.parts > 1) acc = partial[part * a.outer.n + o];
        for (i64 i = begin; i < end; i++) {
            acc.push(load_at<C, DT>(a.x.p, a.x.dtype, x + i * a.along[0]), i);
            if (a.phase == 2) {
                store_at<C, -1>(a.out.p, a.out.dtype, y + i * a.along[1], acc.value());
                if (Acc::INDEXED) ((i64 *)a.index.p)[z + i * a.along[2]] = acc.i;
            }
        }
        if (a.phase == 0) partial[part * a.outer.n + o] = acc;
    }
}
