// Indexed reads and writes, and the compaction behind nonzero and masked_select.  A bad index is skipped and reported in
// `error`: {flag, index, dimension, size}.
enum { MAX_INDICES = 8 };
struct IndexBy { char *p; i64 narrow, size, step, wrap, dim; i64 stride[MAX_RANK]; };
struct IndexArgs {
    Walk w;        // the iteration; for writes the dimensions that lie apart in the destination
    Walk serial;   // for writes in order: the dimensions that may meet; else of one element
    Operand x, values;
    i64 x_serial[MAX_RANK], values_serial[MAX_RANK], index_serial[MAX_INDICES][MAX_RANK];
    i64 bytes, count, how;
    u64 *error;
    IndexBy by[MAX_INDICES];
};
__device__ inline bool position(const IndexArgs &a, const Coordinates &at, const Coordinates &inner, i64 &place) {
    for (int k = 0; k < a.count; k++) {
        const IndexBy &by = a.by[k];
        i64 o = offset(at, a.w, by.stride) + offset(inner, a.serial, a.index_serial[k]);
        i64 value = by.narrow ? (i64)((const int *)by.p)[o] : ((const i64 *)by.p)[o], i = value;
        if (by.wrap && i < 0) i += by.size;
        if (i < 0 || i >= by.size) {
            if (atomicCAS(a.error, (u64)0, (u64)1) == 0) {
                a.error[1] = (u64)value;
                a.error[2] = (u64)by.dim;
                a.error[3] = (u64)by.size;
            }
            return false;
        }
        place += i * by.step;
    }
    return true;
}
struct Bytes16 { u64 a, b; };
__device__ inline void move_element(char *to, i64 t, const char *from, i64 f, i64 bytes) {
    switch (bytes) {
    case 1: ((u8 *)to)[t] = ((const u8 *)from)[f]; break;
    case 2: ((u16 *)to)[t] = ((const u16 *)from)[f]; break;
    case 4: ((u32 *)to)[t] = ((const u32 *)from)[f]; break;
    case 8: ((u64 *)to)[t] = ((const u64 *)from)[f]; break;
    default: ((Bytes16 *)to)[t] = ((const Bytes16 *)from)[f]; break;
    }
}
extern "C" __global__ void index_read(const IndexArgs a) {
    Coordinates zero = unravel(a.serial, 0);
    for (i64 i = first_index(); i < a.w.n; i += index_step()) {
        Coordinates at = unravel(a.w, i);
        i64 from = offset(at, a.w, a.x.stride);
        if (position(a, at, zero, from)) move_element(a.values.p, offset(at, a.w, a.values.stride), a.x.p, from, a.bytes);
    }
}
template <class T> __device__ inline T combine(T a, T b, bool largest) { return largest ? m_max(a, b) : m_min(a, b); }
template <class R> __device__ inline Complex<R> combine(Complex<R> a, Complex<R>, bool) { return a; }
// Each thread owns places that no other thread writes, and goes through its values in order.
template <class C> __device__ inline void write_in_order(const IndexArgs &a) {
    for (i64 i = first_index(); i < a.w.n; i += index_step()) {
        Coordinates at = unravel(a.w, i);
        i64 x0 = offset(at, a.w, a.x.stride), v0 = offset(at, a.w, a.values.stride);
        for (i64 s = 0; s < a.serial.n; s++) {
            Coordinates inner = unravel(a.serial, s);
            i64 to = x0 + offset(inner, a.serial, a.x_serial);
            if (!position(a, at, inner, to)) continue;
            C v = load_at<C, -1>(a.values.p, a.values.dtype, v0 + offset(inner, a.serial, a.values_serial));
            if (a.how != 0) {
                C old = load_at<C, -1>(a.x.p, a.x.dtype, to);
                v = a.how == 1 ? old + v : a.how == 2 ? old * v : combine(old, v, a.how == 3);
            }
            store_at<C, -1>(a.x.p, a.x.dtype, to, v);
        }
    }
}
extern "C" __global__ void index_write_f32(const IndexArgs a) { write_in_order<float>(a); }
extern "C" __global__ void index_write_f64(const IndexArgs a) { write_in_order<double>(a); }
extern "C" __global__ void index_write_i64(const IndexArgs a) { write_in_order<i64>(a); }
extern "C" __global__ void index_write_c32(const IndexArgs a) { write_in_order<c32>(a); }
extern "C" __global__ void index_write_c64(const IndexArgs a) { write_in_order<c64>(a); }

// Replacement in parallel: first the last element that goes to each place, then that element alone is written.
struct WinnerArgs { IndexArgs i; i64 *winner; i64 base; i64 phase; };
extern "C" __global__ void index_winner(const WinnerArgs a) {
    Coordinates zero = unravel(a.i.serial, 0);
    for (i64 i = first_index(); i < a.i.w.n; i += index_step()) {
        Coordinates at = unravel(a.i.w, i);
        i64 to = offset(at, a.i.w, a.i.x.stride);
        if (!position(a.i, at, zero, to)) continue;
        if (a.phase == 0) atomicMax(a.winner + to - a.base, i + 1);
        else if (a.winner[to - a.base] == i + 1)
            move_element(a.i.x.p, to, a.i.values.p, offset(at, a.i.w, a.i.values.stride), a.i.bytes);
    }
}

// `count` is the running count of chosen elements.  With `coordinates` their places are written, else the elements.
struct CompactArgs { Walk w; Operand x, flag; i64 *count; char *out; i64 step, column, bytes, coordinates; };
extern "C" __global__ void compact(const CompactArgs a) {
    for (i64 i = first_index(); i < a.w.n; i += index_step()) {
        Coordinates at = unravel(a.w, i);
        if (!((const u8 *)a.flag.p)[i]) continue;
        i64 row = a.count[i] - 1;
        if (a.coordinates) {
            // The walk has its innermost dimension first.
            for (i64 d = 0; d < a.w.rank; d++) ((i64 *)a.out)[row * a.step + (a.w.rank - 1 - d) * a.column] = at.at[d];
        } else {
            move_element(a.out, row * a.step, a.x.p, offset(at, a.w, a.x.stride), a.bytes);
        }
    }
}
