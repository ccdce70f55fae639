//! Selection and sorting in the order in which C++'s standard library visits elements. Among equals these algorithms are not
//! stable, and which of them comes out, and where, is part of the results of `topk`, `kthvalue` and `mode`.
//! Introselect and introsort: Musser, "Introspective sorting and selection algorithms" (1997); heaps: Floyd (1964);
//! quickselect with three sentinels: Sedgewick, "Implementing quicksort programs" (1978).

/// Ranges up to this are left to one insertion sort at the end.
const SHORT: usize = 16;

/// Twice the binary logarithm: how often a range may be split before a heap takes over.
fn depth(n: usize) -> u32 {
    2 * n.max(1).ilog2()
}

/// Puts the `k`-th in order (from 0) at `k`, nothing above it before, nothing below it after.
pub(crate) fn nth_element<T: Copy>(x: &mut [T], k: usize, less: &impl Fn(T, T) -> bool) {
    let (mut lo, mut hi) = (0, x.len());
    let mut left = depth(hi);
    while hi - lo > 3 {
        if left == 0 {
            heap_select(&mut x[lo..hi], k + 1 - lo, less);
            x.swap(lo, k);
            return;
        }
        left -= 1;
        let cut = lo + partition(&mut x[lo..hi], less);
        if cut <= k {
            lo = cut;
        } else {
            hi = cut;
        }
    }
    insertion_sort(&mut x[lo..hi], less);
}

/// Sorts; equals in no particular, but always the same order.
pub(crate) fn sort<T: Copy>(x: &mut [T], less: &impl Fn(T, T) -> bool) {
    let n = x.len();
    intro_loop(x, depth(n), less);
    insertion_sort(&mut x[..n.min(SHORT)], less);
    for i in SHORT.min(n)..n {
        insert(x, i, less);
    }
}

/// Sorts the first `k` in order to the front.
pub(crate) fn partial_sort<T: Copy>(x: &mut [T], k: usize, less: &impl Fn(T, T) -> bool) {
    heap_select(x, k, less);
    for end in (1..k).rev() {
        pop(x, end, end, less);
    }
}

/// Puts the `k`-th in order (from 0) at `k`: quickselect with the median of three as pivot, from both ends.
pub(crate) fn quick_select<T: Copy>(x: &mut [T], k: usize, less: &impl Fn(T, T) -> bool) {
    let (mut lo, mut hi) = (0, x.len() - 1);
    while hi > lo {
        if hi == lo + 1 {
            if less(x[hi], x[lo]) {
                x.swap(lo, hi);
            }
            return;
        }
        // The median of first, middle and last to the front, with a smaller one after it and a larger one at the end.
        x.swap(lo + (hi - lo) / 2, lo + 1);
        for (a, b) in [(lo + 1, hi), (lo, hi), (lo + 1, lo)] {
            if less(x[b], x[a]) {
                x.swap(a, b);
            }
        }
        let pivot = x[lo];
        let (mut i, mut j) = (lo + 1, hi);
        loop {
            i += 1;
            while less(x[i], pivot) {
                i += 1;
            }
            j -= 1;
            while less(pivot, x[j]) {
                j -= 1;
            }
            if j < i {
                break;
            }
            x.swap(i, j);
        }
        x.swap(lo, j);
        if j <= k {
            lo = i;
        }
        if j >= k {
            // `j` is 0 only where the pivot is the answer.
            let Some(end) = j.checked_sub(1) else { return };
            hi = end;
        }
    }
}

fn intro_loop<T: Copy>(x: &mut [T], mut left: u32, less: &impl Fn(T, T) -> bool) {
    let mut hi = x.len();
    while hi > SHORT {
        if left == 0 {
            return partial_sort(&mut x[..hi], hi, less);
        }
        left -= 1;
        let cut = partition(&mut x[..hi], less);
        intro_loop(&mut x[cut..hi], left, less);
        hi = cut;
    }
}

/// Splits by the median of the second, the middle and the last element, which is swapped to the front; returns where the
/// upper part begins.
fn partition<T: Copy>(x: &mut [T], less: &impl Fn(T, T) -> bool) -> usize {
    let (a, b, c) = (1, x.len() / 2, x.len() - 1);
    let median = if less(x[a], x[b]) {
        if less(x[b], x[c]) {
            b
        } else if less(x[a], x[c]) {
            c
        } else {
            a
        }
    } else if less(x[a], x[c]) {
        a
    } else if less(x[b], x[c]) {
        c
    } else {
        b
    };
    x.swap(0, median);
    let pivot = x[0];
    let (mut i, mut j) = (1, x.len());
    loop {
        // Neither runs out: the two others of the three stand as sentinels.
        while less(x[i], pivot) {
            i += 1;
        }
        j -= 1;
        while less(pivot, x[j]) {
            j -= 1;
        }
        if i >= j {
            return i;
        }
        x.swap(i, j);
        i += 1;
    }
}

fn insertion_sort<T: Copy>(x: &mut [T], less: &impl Fn(T, T) -> bool) {
    for i in 1..x.len() {
        if less(x[i], x[0]) {
            x[..=i].rotate_right(1);
        } else {
            insert(x, i, less);
        }
    }
}
/// Moves element `i` down to where it belongs among those before it, after its equals.
fn insert<T: Copy>(x: &mut [T], i: usize, less: &impl Fn(T, T) -> bool) {
    let value = x[i];
    let mut at = i;
    while at > 0 && less(value, x[at - 1]) {
        x[at] = x[at - 1];
        at -= 1;
    }
    x[at] = value;
}

/// The first `k` in order to the front, as a heap with the last of them on top.
fn heap_select<T: Copy>(x: &mut [T], k: usize, less: &impl Fn(T, T) -> bool) {
    if k == 0 {
        return;
    }
    for parent in (0..k / 2).rev() {
        let value = x[parent];
        sift(&mut x[..k], parent, value, less);
    }
    for i in k..x.len() {
        if less(x[i], x[0]) {
            pop(x, k, i, less);
        }
    }
}
/// Takes the heap's top (of `n` elements) out to `to`, whose element comes in instead.
fn pop<T: Copy>(x: &mut [T], n: usize, to: usize, less: &impl Fn(T, T) -> bool) {
    let value = x[to];
    x[to] = x[0];
    sift(&mut x[..n], 0, value, less);
}
/// Puts `value` into the heap below `hole`: the hole sinks to a leaf along the larger children, and the value rises from there.
fn sift<T: Copy>(heap: &mut [T], mut hole: usize, value: T, less: &impl Fn(T, T) -> bool) {
    let (top, n) = (hole, heap.len());
    loop {
        let mut child = 2 * hole + 2;
        if child > n {
            break;
        }
        if child == n || less(heap[child], heap[child - 1]) {
            child -= 1;
        }
        heap[hole] = heap[child];
        hole = child;
    }
    while hole > top {
        let parent = (hole - 1) / 2;
        if !less(heap[parent], value) {
            break;
        }
        heap[hole] = heap[parent];
        hole = parent;
    }
    heap[hole] = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_what_a_stable_sort_orders() {
        let mut seed = 7u64;
        for n in 1..300 {
            let mut draw = |m: u64| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) % m
            };
            let x: Vec<u64> = (0..n).map(|i| draw(1 + n as u64 / 3) << 32 | i as u64).collect();
            let less = |a: u64, b: u64| a >> 32 < b >> 32;
            let keys = |x: &[u64]| x.iter().map(|w| w >> 32).collect::<Vec<_>>();
            let mut sorted = x.clone();
            sorted.sort();
            let k = draw(n as u64) as usize;
            let mut y = x.clone();
            sort(&mut y, &less);
            assert_eq!(keys(&y), keys(&sorted));
            let mut y = x.clone();
            partial_sort(&mut y, k, &less);
            assert_eq!(keys(&y[..k]), keys(&sorted[..k]));
            for select in [nth_element, quick_select] {
                let mut y = x.clone();
                select(&mut y, k, &less);
                assert_eq!(y[k] >> 32, sorted[k] >> 32);
                y.sort();
                assert_eq!(y, sorted, "the same elements");
            }
        }
    }
}
