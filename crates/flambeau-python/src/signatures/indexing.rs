//! Signatures of reading and writing by index.

use flambeau::{Dest, Number, Result, Tensor, Value};

fn index_select(t: &Tensor, dim: i64, index: &Tensor, dest: Dest<'_>) -> Result<Tensor> {
    if let Dest::Out(to) = dest {
        flambeau::apply::check_apart(to[0])?;
    }
    flambeau::apply::store_apart("index_select", indexing::index_select(t, dim, index)?, &[t, index], dest)
}

operators! { INDEXING;
    "gather(Tensor input, int dim, Tensor index, *, bool sparse_grad=False)" [function method out] => |t: &Tensor, d: i64, i: &Tensor, _s: bool, dest: Dest<'_>| flambeau::apply::store_apart("gather", indexing::gather(t, d, i)?, &[t, i], dest);
    "scatter(Tensor input, int dim, Tensor index, Tensor src)" [function method inplace out apart] => |t: &Tensor, d: i64, i: &Tensor, s: &Tensor| indexing::scatter(t, d, i, s, Dest::New);
    "scatter(Tensor input, int dim, Tensor index, Number value)" [function method inplace out apart] => |t: &Tensor, d: i64, i: &Tensor, v: Number| indexing::scatter_value(t, d, i, v, Dest::New);
    "scatter(Tensor input, int dim, Tensor index, Tensor src, *, str reduce)" [function method inplace out apart] => scatter::scatter_combine;
    "scatter(Tensor input, int dim, Tensor index, Number value, *, str reduce)" [function method inplace out apart] => scatter::scatter_combine_value;
    "scatter_reduce(Tensor input, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True)" [function method inplace out apart] => scatter::scatter_reduce;
    "index_reduce(Tensor input, int dim, Tensor index, Tensor source, str reduce, *, bool include_self=True)" [function method inplace out] => scatter::index_reduce;
    "put(Tensor input, Tensor index, Tensor source, bool accumulate=False)" [function method inplace] => scatter::put;
    "nonzero_static(Tensor input, *, int size, int fill_value=-1)" [function method out] => scatter::nonzero_static;
    "select_scatter(Tensor input, Tensor src, int dim, int index)" [function method out] => scatter::select_scatter;
    "slice_scatter(Tensor input, Tensor src, int dim=0, int? start=None, int? end=None, int step=1)" [function method out] => scatter::slice_scatter;
    "diagonal_scatter(Tensor input, Tensor src, int offset=0, int dim1=0, int dim2=1)" [function method out] => scatter::diagonal_scatter;
    "as_strided_scatter(Tensor input, Tensor src, int[*] size, int[*] stride, int? storage_offset=None)" [function method out] => scatter::as_strided_scatter;
    "unravel_index(Tensor indices, int[] shape)" [function] => scatter::unravel_index;
    "scatter_add(Tensor input, int dim, Tensor index, Tensor src)" [function method inplace out apart] => indexing::scatter_add;
    "index_select(Tensor input, int dim, Tensor index)" [function method out] => index_select;
    "index_add(Tensor input, int dim, Tensor index, Tensor source, *, Number alpha=1)" [function method inplace out] => |t: &Tensor, d: i64, i: &Tensor, s: &Tensor, a: Number| indexing::index_add_to(t, d, i, s, a, Dest::New);
    "index_copy(Tensor input, int dim, Tensor index, Tensor source)" [function method inplace out] => |t: &Tensor, d: i64, i: &Tensor, s: &Tensor| indexing::index_copy(t, d, i, s, Dest::New);
    "index_fill(Tensor input, int dim, Tensor index, Tensor|Number value)" [function method inplace] => |t: &Tensor, d: i64, i: &Tensor, v: Value<'_>, dest: Dest<'_>| indexing::index_fill(t, d, i, v, dest);
    "index_put_(Tensor input, Tensor?[] indices, Tensor values, bool accumulate=False)" [method function] => indexing::index_put_;
    "index_put(Tensor input, Tensor?[] indices, Tensor values, bool accumulate=False)" [method function] => indexing::index_put;
    "take(Tensor input, Tensor index)" [function method out] => |t: &Tensor, i: &Tensor, dest: Dest<'_>| flambeau::apply::store_apart("take", indexing::take(t, i)?, &[t, i], dest);
    "take_along_dim(Tensor input, Tensor indices, int? dim=None)" [function method out] => indexing::take_along_dim;
    "nonzero(Tensor input)" [function method out apart] => indexing::nonzero;
    "nonzero(Tensor input, *, bool as_tuple)" [function method out apart] => |t: &Tensor, tuple: bool| -> Result<crate::call::Returned> {
        Ok(if tuple {
            crate::call::Returned::Tuple(indexing::nonzero_tuple(t)?.into_iter().map(crate::call::Returned::Tensor).collect())
        } else {
            crate::call::Returned::Tensor(indexing::nonzero(t)?)
        })
    };
    "argwhere(Tensor input)" [function method] => indexing::nonzero;
    "where(Tensor condition)" [function] => indexing::nonzero_tuple;
    "masked_fill(Tensor input, Tensor mask, Tensor|Number value)" [function method inplace] => |t: &Tensor, m: &Tensor, v: Value<'_>, dest: Dest<'_>| indexing::masked_fill(t, m, v, dest);
    "masked_select(Tensor input, Tensor mask)" [function method out] => |t: &Tensor, m: &Tensor, dest: Dest<'_>| flambeau::apply::store_apart("masked_select", indexing::masked_select(t, m)?, &[t, m], dest);
    "masked_scatter(Tensor input, Tensor mask, Tensor source)" [function method inplace] => |t: &Tensor, m: &Tensor, s: &Tensor, dest: Dest<'_>| indexing::masked_scatter(t, m, s, dest);
}
