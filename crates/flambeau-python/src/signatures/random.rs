//! Signatures of what draws random numbers, and of dropout.

use flambeau::core::{ensure, MemoryFormat};
use flambeau::ops::dropout::Unit;
use flambeau::random::Generator;
use flambeau::{DType, Dest, Device, Number, Tensor, Value};

/// Dropout of one kind; in-place spellings write their input.
macro_rules! dropout {
    ($function:ident $unit:ident $inplace:literal) => {
        |x: &Tensor, p: f64, training: bool| dropout::$function(x, p, training, $inplace, Unit::$unit)
    };
    ($function:ident $unit:ident) => {
        |x: &Tensor, p: f64, training: bool, inplace: bool| {
            // `nn.functional` refuses with another class than the operators of the top level.
            ensure!((0.0..=1.0).contains(&p), Value, "dropout probability has to be between 0 and 1, but got {p}");
            dropout::$function(x, p, training, inplace, Unit::$unit)
        }
    };
}

operators! { RANDOM;
    "rand(int[*] size, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => random::rand;
    "randn(int[*] size, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => |size: &[i64], g: Option<&Generator>, dtype: Option<DType>, device: Option<Device>, dest: Dest<'_>| match dest {
        // Drawn in place: the order of numbers depends on the memory that they go to.
        Dest::Out(to) => {
            if to[0].sizes()[..] != *size {
                view::resize(to[0], size)?;
            }
            random::normal_(to[0], 0.0, 1.0, g)
        }
        _ => random::randn(size, g, dtype, device),
    };
    "randint(int low, int high, int[*] size, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => random::randint;
    "randint(int high, int[*] size, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => |high: i64, size: &[i64], g: Option<&Generator>, dtype: Option<DType>, device: Option<Device>| random::randint(0, high, size, g, dtype, device);
    "randperm(int n, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => random::randperm;
    "rand_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |x: &Tensor, dtype: Option<DType>, device: Option<Device>, _: Option<MemoryFormat>| random::rand_like(x, dtype, device);
    "randn_like(Tensor input, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |x: &Tensor, dtype: Option<DType>, device: Option<Device>, _: Option<MemoryFormat>| random::randn_like(x, dtype, device);
    "randint_like(Tensor input, int low, int high, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |x: &Tensor, low: i64, high: i64, dtype: Option<DType>, device: Option<Device>, _: Option<MemoryFormat>| random::randint_like(x, low, high, dtype, device);
    "randint_like(Tensor input, int high, *, dtype? dtype=None, device? device=None, memory_format? memory_format=None)" [function factory] => |x: &Tensor, high: i64, dtype: Option<DType>, device: Option<Device>, _: Option<MemoryFormat>| random::randint_like(x, 0, high, dtype, device);
    "normal(Tensor mean, Tensor|Number std=1.0, *, Generator? generator=None)" [function out] => |mean: &Tensor, std: Value<'_>, g: Option<&Generator>| random::normal_tensors(mean.into(), std, g);
    "normal(Number mean, Tensor std, *, Generator? generator=None)" [function out] => |mean: Number, std: &Tensor, g: Option<&Generator>| random::normal_tensors(mean.into(), std.into(), g);
    "normal(float mean, float std, int[*] size, *, Generator? generator=None, dtype? dtype=None, device? device=None)" [function factory out] => random::normal;
    "bernoulli(Tensor input, *, Generator? generator=None)" [function method out] => random::bernoulli;
    "bernoulli(Tensor input, float p, *, Generator? generator=None)" [function method] => random::bernoulli_p;
    "multinomial(Tensor input, int num_samples, bool replacement=False, *, Generator? generator=None)" [function method out] => |t: &Tensor, n: i64, r: bool, g: Option<&Generator>, dest: Dest<'_>| flambeau::apply::store_exactly("multinomial", random::multinomial(t, n, r, g)?, dest);
    "_standard_gamma(Tensor input, Generator? generator=None)" [function] => random::standard_gamma;
    "_sample_dirichlet(Tensor input, Generator? generator=None)" [function] => random::dirichlet;
    "poisson(Tensor input, Generator? generator=None)" [function] => random::poisson;
    "binomial(Tensor count, Tensor prob, Generator? generator=None)" [function] => random::binomial;
    // ---- in place
    "uniform_(Tensor input, float from=0.0, float to=1.0, *, Generator? generator=None)" [method] => random::uniform_;
    "normal_(Tensor input, float mean=0.0, float std=1.0, *, Generator? generator=None)" [method] => random::normal_;
    "log_normal_(Tensor input, float mean=1.0, float std=2.0, *, Generator? generator=None)" [method] => random::log_normal_;
    "exponential_(Tensor input, float lambd=1.0, *, Generator? generator=None)" [method] => random::exponential_;
    "cauchy_(Tensor input, float median=0.0, float sigma=1.0, *, Generator? generator=None)" [method] => random::cauchy_;
    "geometric_(Tensor input, float p, *, Generator? generator=None)" [method] => random::geometric_;
    "random_(Tensor input, int from, int? to, *, Generator? generator=None)" [method] => |x: &Tensor, from: i64, to: Option<i64>, g: Option<&Generator>| random::random_(x, Some(from), to, g);
    "random_(Tensor input, int to, *, Generator? generator=None)" [method] => |x: &Tensor, to: i64, g: Option<&Generator>| random::random_(x, None, Some(to), g);
    "random_(Tensor input, *, Generator? generator=None)" [method] => |x: &Tensor, g: Option<&Generator>| random::random_(x, None, None, g);
    "bernoulli_(Tensor input, Tensor p, *, Generator? generator=None)" [method] => random::bernoulli_tensor_;
    "bernoulli_(Tensor input, float p=0.5, *, Generator? generator=None)" [method] => random::bernoulli_;
    // ---- dropout
    "dropout(Tensor input, float p, bool train)" [function] => dropout!(apply_dropout Element false);
    "dropout_(Tensor input, float p, bool train)" [function] => dropout!(apply_dropout Element true);
    "native_dropout(Tensor input, float p, bool? train)" [function] => dropout::native_dropout;
    "feature_dropout(Tensor input, float p, bool train)" [function] => dropout!(apply_dropout Channel false);
    "feature_dropout_(Tensor input, float p, bool train)" [function] => dropout!(apply_dropout Channel true);
    "alpha_dropout(Tensor input, float p, bool train)" [function] => dropout!(alpha_dropout Element false);
    "alpha_dropout_(Tensor input, float p, bool train)" [function] => dropout!(alpha_dropout Element true);
    "feature_alpha_dropout(Tensor input, float p, bool train)" [function] => dropout!(alpha_dropout Channel false);
    "feature_alpha_dropout_(Tensor input, float p, bool train)" [function] => dropout!(alpha_dropout Channel true);
    "nn.functional.dropout(Tensor input, float p=0.5, bool training=True, bool inplace=False)" [function] => dropout!(apply_dropout Element);
    "nn.functional.alpha_dropout(Tensor input, float p=0.5, bool training=False, bool inplace=False)" [function] => dropout!(alpha_dropout Element);
    "nn.functional.feature_alpha_dropout(Tensor input, float p=0.5, bool training=False, bool inplace=False)" [function] => dropout!(alpha_dropout Channel);
}
