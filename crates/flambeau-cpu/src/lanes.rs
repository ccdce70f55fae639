//! What a fixed tree of lanes ends with. Lanes live in registers while a loop runs over them; that takes some care, since
//! lanes whose parts are looked at one by one, or whose address goes to another function, are kept in memory, and every turn of
//! the loop waits for it.

/// Lanes of a sum: four vectors of the widest level in float32.
pub(crate) const LANES: usize = 64;

/// The pairwise fold of lanes, halves upon each other: of a copy, and out of line.
#[inline(always)]
pub(crate) fn fold<S: Copy>(lanes: &[S; LANES], f: impl Fn(S, S) -> S) -> S {
    let copy: [S; LANES] = std::array::from_fn(|l| lanes[l]);
    fold_far(&copy, f)
}
#[inline(never)]
fn fold_far<S: Copy>(lanes: &[S; LANES], f: impl Fn(S, S) -> S) -> S {
    let a: [S; 32] = std::array::from_fn(|l| f(lanes[l], lanes[l + 32]));
    let b: [S; 16] = std::array::from_fn(|l| f(a[l], a[l + 16]));
    let c: [S; 8] = std::array::from_fn(|l| f(b[l], b[l + 8]));
    let d: [S; 4] = std::array::from_fn(|l| f(c[l], c[l + 4]));
    f(f(d[0], d[2]), f(d[1], d[3]))
}
