//! Signatures of matrix products.

use flambeau::core::err;
use flambeau::{Number, Tensor};

operators! { LINALG;
    "matmul(Tensor input, Tensor other)" [function method out alias(linalg.matmul)] => linalg::matmul;
    "mm(Tensor input, Tensor mat2)" [function method out] => linalg::mm;
    "bmm(Tensor input, Tensor mat2)" [function method out] => linalg::bmm;
    "mv(Tensor input, Tensor vec)" [function method out] => linalg::mv;
    "dot(Tensor input, Tensor tensor)" [function method out] => linalg::dot;
    "vdot(Tensor input, Tensor other)" [function method out] => linalg::vdot;
    "outer(Tensor input, Tensor vec2)" [function method out alias(ger)] => linalg::outer;
    "inner(Tensor input, Tensor other)" [function method out] => linalg::inner;
    "addmm(Tensor input, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addmm(i, a, b, beta, alpha);
    "addmv(Tensor input, Tensor mat, Tensor vec, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addmv(i, a, b, beta, alpha);
    "addbmm(Tensor input, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addbmm(i, a, b, beta, alpha);
    "baddbmm(Tensor input, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::baddbmm(i, a, b, beta, alpha);
    "addr(Tensor input, Tensor vec1, Tensor vec2, *, Number beta=1, Number alpha=1)" [function method inplace out] => |i: &Tensor, a: &Tensor, b: &Tensor, beta: Number, alpha: Number| linalg::addr(i, a, b, beta, alpha);
    "nn.functional.linear(Tensor input, Tensor weight, Tensor? bias=None)" [function out] => linalg::linear;
    "einsum(str equation, Tensor[*] operands)" [function] => linalg::einsum;
    "tensordot(Tensor a, Tensor b, int dims=2)" [function out] => |a: &Tensor, b: &Tensor, n: i64| {
        if n < 0 || n as usize > a.dim() || n as usize > b.dim() {
            return Err(err!(Runtime, "tensordot expects dims >= 0 and no more than the dimensions of either tensor, but got dims={n}"));
        }
        let da: Vec<i64> = (a.dim() as i64 - n..a.dim() as i64).collect();
        let db: Vec<i64> = (0..n).collect();
        linalg::tensordot(a, b, &da, &db)
    };
    "trace(Tensor input)" [function method] => linalg::trace;
    "tril(Tensor input, int diagonal=0)" [function method inplace out] => linalg::tril;
    "triu(Tensor input, int diagonal=0)" [function method inplace out] => linalg::triu;
    "linalg.vecdot(Tensor x, Tensor y, *, int dim=-1)" [function out] => |a: &Tensor, b: &Tensor, d: i64| reduction::sum(&elementwise::mul(&(if a.dtype().is_complex() { elementwise::conj_physical(a)? } else { a.clone() }), b)?, &[d], false);
}
