// Reductions and scans.  A way of combining is a struct with `empty`, `push` (one value and its index), `merge` (a later
// part) and `finish`.  Parts are cut and merged by size alone, so results do not depend on the launch.
struct Source { char *p; i64 dtype; i64 outer[MAX_RANK], inner[MAX_RANK]; };

template <class C> struct SumOf {
    C v;
    static __device__ inline SumOf empty() { SumOf s; s.v = C(0); return s; }
    __device__ inline void push(C x, i64) { v = v + x; }
    __device__ inline void merge(const SumOf &o) { v = v + o.v; }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double) const { store_at<C, DT>(out[0].p, out[0].dtype, at[0], v); }
};
template <class C> struct ScaledSumOf {
    C v;
    static __device__ inline ScaledSumOf empty() { ScaledSumOf s; s.v = C(0); return s; }
    __device__ inline void push(C x, i64) { v = v + x; }
    __device__ inline void merge(const ScaledSumOf &o) { v = v + o.v; }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double scale) const {
        store_at<C, DT>(out[0].p, out[0].dtype, at[0], v * C(scale));
    }
};
template <class C> struct ProdOf {
    C v;
    static __device__ inline ProdOf empty() { ProdOf s; s.v = C(1); return s; }
    __device__ inline void push(C x, i64) { v = v * x; }
    __device__ inline void merge(const ProdOf &o) { v = v * o.v; }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double) const { store_at<C, DT>(out[0].p, out[0].dtype, at[0], v); }
};
template <class C, bool ANY> struct TruthOf {
    i64 v;
    static __device__ inline TruthOf empty() { TruthOf s; s.v = !ANY; return s; }
    __device__ inline void push(C x, i64) { v = ANY ? v | is_true(x) : v & is_true(x); }
    __device__ inline void merge(const TruthOf &o) { v = ANY ? v | o.v : v & o.v; }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double) const { store_at<i64, DT>(out[0].p, out[0].dtype, at[0], v); }
};
// The largest (or smallest) value and its index: the first of equals, NaN before everything.  OUTPUT 0: the value; 1: the
// index; 2: both.
template <class C, bool LARGEST, int OUTPUT> struct ExtremeOf {
    C v;
    i64 i;
    static __device__ inline ExtremeOf empty() { ExtremeOf s; s.v = C(0); s.i = -1; return s; }
    __device__ inline void push(C x, i64 index) { ExtremeOf o; o.v = x; o.i = index; merge(o); }
    __device__ inline void merge(const ExtremeOf &o) {
        if (o.i < 0) return;
        bool nan = v != v, other_nan = o.v != o.v, better;
        if (i < 0) better = true;
        else if (nan || other_nan) better = other_nan && (!nan || o.i < i);
        else better = (LARGEST ? o.v > v : o.v < v) || (o.v == v && o.i < i);
        if (better) *this = o;
    }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double) const {
        if (OUTPUT != 1) store_at<C, DT>(out[0].p, out[0].dtype, at[0], v);
        if (OUTPUT == 1) store_at<i64, DT>(out[0].p, out[0].dtype, at[0], i);
        if (OUTPUT == 2) ((i64 *)out[1].p)[at[1]] = i;
    }
};
// B. P. Welford's update and the merge of Chan, Golub and LeVeque.
template <class C> struct VarianceOf {
    C n, mean, squares;
    static __device__ inline VarianceOf empty() { VarianceOf s; s.n = s.mean = s.squares = C(0); return s; }
    __device__ inline void push(C x, i64) {
        n = n + C(1);
        C d = x - mean;
        mean = mean + d / n;
        squares = squares + d * (x - mean);
    }
    __device__ inline void merge(const VarianceOf &o) {
        if (o.n == C(0)) return;
        if (n == C(0)) { *this = o; return; }
        C total = n + o.n, d = o.mean - mean;
        mean = mean + d * (o.n / total);
        squares = squares + (o.squares + d * d * (n * o.n / total));
        n = total;
    }
    template <int DT> __device__ inline void finish(const Operand *out, const i64 *at, double correction) const {
        C nan = C(0) / C(0), divisor = n - C(correction);
        store_at<C, DT>(out[0].p, out[0].dtype, at[0], n == C(0) ? nan : squares / (divisor > C(0) ? divisor : C(0)));
        store_at<C, -1>(out[1].p, out[1].dtype, at[1], n == C(0) ? nan : mean);
    }
};

// ---- reductions --------------------------------------------------------------------------------------------------------
// Args: Walk outer, inner; i64 part (elements a part), parts; u64 parameter; char *partial; Operand out[2]; Source x[]; Num c[].
template <class Acc, class Args> __device__ inline void deliver(const Args &a, i64 o, i64 part, const Acc &acc) {
    if (a.parts > 1) {
        ((Acc *)a.partial)[part * a.outer.n + o] = acc;
        return;
    }
    Coordinates at = unravel(a.outer, o);
    i64 offsets[2] = {offset(at, a.outer, a.out[0].stride), offset(at, a.outer, a.out[1].stride)};
    acc.template finish<Args::OUT>(a.out, offsets, double_of_bits(a.parameter));
}
// A thread an output's part: for short extents, and where neighbouring outputs lie closer than neighbouring inputs.
template <class Acc, class Program, class Args> __device__ inline void reduce_thread(const Args &a) {
    i64 work = a.outer.n * a.parts;
    for (i64 w = first_index(); w < work; w += index_step()) {
        i64 o = w % a.outer.n, part = w / a.outer.n, begin = part * a.part, end = begin + a.part;
        if (end > a.inner.n) end = a.inner.n;
        Coordinates at = unravel(a.outer, o);
        Acc acc = Acc::empty();
        for (i64 i = begin; i < end; i++) acc.push(Program::value(a, at, unravel(a.inner, i)), i);
        deliver<Acc>(a, o, part, acc);
    }
}
// A block of 256 threads an output's part.
template <class Acc, class Program, class Args> __device__ inline void reduce_block(const Args &a, char *room) {
    Acc *shared = (Acc *)room;
    i64 work = a.outer.n * a.parts;
    for (i64 w = blockIdx.x; w < work; w += gridDim.x) {
        i64 o = w / a.parts, part = w % a.parts, begin = part * a.part, end = begin + a.part;
        if (end > a.inner.n) end = a.inner.n;
        Coordinates at = unravel(a.outer, o);
        Acc acc = Acc::empty();
        for (i64 i = begin + threadIdx.x; i < end; i += 256) acc.push(Program::value(a, at, unravel(a.inner, i)), i);
        shared[threadIdx.x] = acc;
        __syncthreads();
        for (int half = 128; half; half >>= 1) {
            if ((int)threadIdx.x < half) {
                acc.merge(shared[threadIdx.x + half]);
                shared[threadIdx.x] = acc;
            }
            __syncthreads();
        }
        if (threadIdx.x == 0) deliver<Acc>(a, o, part, acc);
        __syncthreads();
    }
}
// Merges `part` neighbouring parts of `from` into one, in order; as many as `inner.n` come in.
template <class Acc, class Args> __device__ inline void reduce_merge(const Args &a, const char *from) {
    i64 work = a.outer.n * a.parts;
    for (i64 w = first_index(); w < work; w += index_step()) {
        i64 o = w % a.outer.n, part = w / a.outer.n, begin = part * a.part, end = begin + a.part;
        if (end > a.inner.n) end = a.inner.n;
        Acc acc = Acc::empty();
        for (i64 i = begin; i < end; i++) acc.merge(((const Acc *)from)[i * a.outer.n + o]);
        deliver<Acc>(a, o, part, acc);
    }
}
