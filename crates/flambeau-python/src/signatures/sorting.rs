//! Signatures of sorting and selecting.

use flambeau::Tensor;

operators! { SORTING;
    "sort(Tensor input, int dim=-1, bool descending=False, bool stable=False) -> sort(values, indices)" [function method out] => |t: &Tensor, d: i64, desc: bool, _s: bool| sorting::sort(t, d, desc);
    "sort(Tensor input, *, bool? stable, int dim=-1, bool descending=False) -> sort(values, indices)" [function method out] => |t: &Tensor, _s: Option<bool>, d: i64, desc: bool| sorting::sort(t, d, desc);
    "argsort(Tensor input, int dim=-1, bool descending=False, bool stable=False)" [function method] => |t: &Tensor, d: i64, desc: bool, _s: bool| sorting::argsort(t, d, desc);
    "topk(Tensor input, int k, int dim=-1, bool largest=True, bool sorted=True) -> topk(values, indices)" [function method out apart] => |t: &Tensor, k: i64, d: i64, l: bool, _s: bool| sorting::topk(t, k, d, l);
    "msort(Tensor input)" [function method out] => |t: &Tensor| Ok(sorting::sort(t, 0, false)?.0);
    "kthvalue(Tensor input, int k, int dim=-1, bool keepdim=False) -> kthvalue(values, indices)" [function method out apart] => sorting::kthvalue;
    "median(Tensor input)" [function method] => sorting::median;
    "median(Tensor input, int dim, bool keepdim=False) -> median(values, indices)" [function method out] => sorting::median_dim;
}
