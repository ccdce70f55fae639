//! Signatures of joining tensors.

use flambeau::{Dest, Number, Tensor};

operators! { JOIN;
    "cat(Tensor[] tensors, int dim=0)" [function out apart alias(concat, concatenate)] => |t: &[Tensor], d: i64| join::cat(t, d);
    "concat(Tensor[] tensors, int? dim)" [function] => |t: &[Tensor], d: Option<i64>| match d {
        Some(d) => join::cat(t, d),
        None => join::cat(&t.iter().map(|t| flambeau::ops::view::reshape(t, &[-1])).collect::<Result<Vec<_>, _>>()?, 0),
    };
    "stack(Tensor[] tensors, int dim=0)" [function out apart] => join::stack;
    "hstack(Tensor[] tensors)" [function out apart] => join::hstack;
    "vstack(Tensor[] tensors)" [function out apart alias(row_stack)] => join::vstack;
    "dstack(Tensor[] tensors)" [function out] => join::dstack;
    "column_stack(Tensor[] tensors)" [function out] => join::column_stack;
    "broadcast_tensors(Tensor[*] tensors)" [function] => join::broadcast_tensors;
    "_meshgrid(Tensor[] tensors, str indexing)" [function] => join::meshgrid;
    "constant_pad_nd(Tensor input, int[] pad, Number value=0)" [function] => |t: &Tensor, p: &[i64], v: Number| join::constant_pad_nd(t, p, v);
    "block_diag(Tensor[*] tensors)" [function] => join::block_diag;
    "cartesian_prod(Tensor[*] tensors)" [function] => scatter::cartesian_prod;
    "combinations(Tensor input, int r=2, bool with_replacement=False)" [function] => scatter::combinations;
    "complex(Tensor real, Tensor imag)" [function out] => |a: &Tensor, b: &Tensor, dest: Dest<'_>| flambeau::apply::store_exactly("complex", scatter::complex(a, b)?, dest);
    "polar(Tensor abs, Tensor angle)" [function out] => |a: &Tensor, b: &Tensor, dest: Dest<'_>| flambeau::apply::store_exactly("polar", scatter::polar(a, b)?, dest);
}
