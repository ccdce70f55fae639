// A stable merge sort along one dimension: in each pass every element finds its place among the run beside its own by
// bisection, so all elements move at once.
struct SortArgs {
    Walk rows;
    i64 n, take, width, phase, descending;
    i64 along[3];
    Operand x, values, index;
    char *key_from, *key_to;
    i64 *at_from, *at_to;
};
// Whether `a` comes strictly before `b`; NaN is the largest.
template <class C> __device__ inline bool comes_before(C a, C b, i64 descending) {
    if (descending) return a > b || (a != a && b == b);
    return a < b || (b != b && a == a);
}
template <class C, int DT> __device__ inline void sort(const SortArgs &a) {
    C *from = (C *)a.key_from, *to = (C *)a.key_to;
    i64 each = a.phase == 2 ? a.take : a.n;
    for (i64 w = first_index(); w < a.rows.n * each; w += index_step()) {
        i64 row = w / each, i = w % each, base = row * a.n;
        if (a.phase == 1) {
            i64 run = i / a.width, begin = run * a.width, other = (run ^ 1) * a.width, last = other + a.width;
            if (last > a.n) last = a.n;
            C key = from[base + i];
            // How many of the other run come before: of equals, those of the left run.
            i64 low = other, high = last > other ? last : other;
            while (low < high) {
                i64 middle = (low + high) / 2;
                C k = from[base + middle];
                bool before = run & 1 ? !comes_before(key, k, a.descending) : comes_before(k, key, a.descending);
                if (before) low = middle + 1;
                else high = middle;
            }
            i64 place = base + (run & 1 ? other : begin) + (i - begin) + (low - other);
            to[place] = key;
            a.at_to[place] = a.at_from[base + i];
            continue;
        }
        Coordinates at = unravel(a.rows, row);
        if (a.phase == 0) {
            to[base + i] = load_at<C, DT>(a.x.p, a.x.dtype, offset(at, a.rows, a.x.stride) + i * a.along[0]);
            a.at_to[base + i] = i;
        } else {
            store_at<C, DT>(a.values.p, a.values.dtype, offset(at, a.rows, a.values.stride) + i * a.along[1], from[base + i]);
            ((i64 *)a.index.p)[offset(at, a.rows, a.index.stride) + i * a.along[2]] = a.at_from[base + i];
        }
    }
}
