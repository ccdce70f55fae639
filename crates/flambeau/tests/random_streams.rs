//! The numbers that each random operator draws from seed 3, against those that PyTorch 2.13 draws on the CPU: the first three and
//! the last three of each tensor.

use flambeau::ops::{dropout, factory, random, view};
use flambeau::random::Generator;
use flambeau::{DType, Device, Result, Tensor};

/// What PyTorch draws.
#[rustfmt::skip]
const EXPECTED: &[(&str, &[f64])] = &[
    ("rand f32", &[0.004263520240783691, 0.10556936264038086, 0.2858424782752991, 0.7759304046630859, 0.3832530379295349, 0.25122910737991333]),
    ("rand f64", &[0.03410819565052048, 0.28674022672130695, 0.7729149443285843, 0.4463180932562102, 0.2256872870362362, 0.1874236240492425]),
    ("rand f16", &[0.00426483154296875, 0.1055908203125, 0.285888671875, 0.77587890625, 0.38330078125, 0.251220703125]),
    ("rand bf16", &[0.0042724609375, 0.10546875, 0.28515625, 0.77734375, 0.3828125, 0.251953125]),
    ("uniform", &[-0.2948837876319885, -0.17331677675247192, 0.043010976165533066, 0.15550540387630463, 0.21617668867111206, 0.8547634482383728]),
    ("randn f32 blocks", &[-0.07664429396390915, 0.35988152027130127, -0.7820168137550354, 0.5865955352783203, 0.7771251201629639, 0.4042048156261444]),
    ("randn f64 blocks", &[-0.21774879177876416, 0.1466771298110492, 0.6690811213485476, -0.3320093611724238, -2.0679166628574084, -0.4770314414376854]),
    ("randn f16 blocks", &[-0.07666015625, 0.35986328125, -0.7822265625, 1.2724609375, -1.2421875, -0.88525390625]),
    ("randn bf16 blocks", &[-0.07666015625, 0.359375, -0.78125, 1.2734375, -1.2421875, -0.88671875]),
    ("randn f32 scalar", &[0.8032760620117188, 0.17483338713645935, 0.08897809684276581, 0.04618244990706444, -1.3682591915130615, 0.3374950885772705]),
    ("randn f64 scalar", &[0.8032760780963507, 0.17483339327910358, 0.08897809502587893, 0.04618245168476012, -1.3682591776659836, 0.33749509853046344]),
    ("normal column", &[4.409828186035156, 2.5245001316070557, 2.266934394836426, 5.0510406494140625, -4.577580451965332, 2.6369919776916504]),
    ("log_normal", &[2.0154027938842773, 1.7223821878433228, 1.685807228088379, 2.126023530960083, 0.9530082941055298, 1.7386043071746826]),
    ("exponential", &[0.023135636001825333, 0.22527305781841278, 0.988287091255188, 0.40818431973457336, 0.4419197738170624, 1.6174193620681763]),
    ("cauchy", &[-17.593225479125977, -0.584428071975708, 3.3108747005462646, 0.7338264584541321, 0.9033830761909485, 8.017293930053711]),
    ("geometric", &[16.0, 6.0, 2.0, 4.0, 4.0, 1.0]),
    ("randint small", &[536.0, 798.0, 32.0, 155.0, 177.0, 811.0]),
    ("randint large", &[455570294424.0, 1073054410371.0, 790795084744.0, 1089691467438.0, 141833209969.0, 5651177301.0]),
    ("random i32", &[218175338.0, 303761048.0, 893988089.0, 1728125800.0, 1782846062.0, 226653793.0]),
    ("random u8", &[106.0, 152.0, 249.0, 104.0, 110.0, 97.0]),
    ("random f32", &[71389.0, 1771142.0, 4795460.0, 72449.0, 4461060.0, 8549844.0]),
    ("randperm", &[86.0, 42.0, 89.0, 26.0, 63.0, 33.0]),
    ("bernoulli p", &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
    ("bernoulli tensor", &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]),
    ("multinomial", &[0.0, 3.0, 1.0]),
    ("multinomial replacement", &[0.0, 1.0, 3.0, 2.0, 2.0, 3.0]),
    ("poisson", &[0.0, 2.0, 3.0, 3.0, 1.0, 1.0]),
    ("poisson large", &[35.0, 34.0, 25.0, 27.0, 40.0, 30.0]),
    ("binomial", &[1.0, 4.0, 4.0, 4.0, 3.0, 3.0]),
    ("permuted memory", &[0.004263520240783691, 0.06011629104614258, 0.45103132724761963, 0.11479580402374268, 0.0666458010673523, 0.5096188187599182]),
];

fn empty(n: i64) -> Result<Tensor> {
    factory::empty(&[n], DType::F32, Device::Cpu)
}
fn full(n: i64, value: f64) -> Result<Tensor> {
    factory::full(&[n], value.into(), DType::F32, Device::Cpu)
}
fn weights() -> Result<Tensor> {
    Tensor::from_slice(&[0.1f32, 0.2, 0.3, 0.4], &[4])
}

fn draw(name: &str, g: &Generator) -> Result<Tensor> {
    let g = Some(g);
    let rand = |d| random::rand(&[100], g, Some(d), None);
    let randn = |n, d| random::randn(&[n], g, Some(d), None);
    match name {
        "rand f32" => rand(DType::F32),
        "rand f64" => rand(DType::F64),
        "rand f16" => rand(DType::F16),
        "rand bf16" => rand(DType::BF16),
        "uniform" => random::uniform_(&empty(50)?, -0.3, 0.9, g),
        "randn f32 blocks" => randn(100, DType::F32),
        "randn f64 blocks" => randn(100, DType::F64),
        "randn f16 blocks" => randn(100, DType::F16),
        "randn bf16 blocks" => randn(100, DType::BF16),
        "randn f32 scalar" => randn(7, DType::F32),
        "randn f64 scalar" => randn(7, DType::F64),
        "normal column" => {
            random::normal_(&view::select(&factory::empty(&[40, 2], DType::F32, Device::Cpu)?, 1, 0)?, 2.0, 3.0, g)
        }
        "log_normal" => random::log_normal_(&empty(40)?, 0.5, 0.25, g),
        "exponential" => random::exponential_(&empty(40)?, 1.5, g),
        "cauchy" => random::cauchy_(&empty(40)?, 1.0, 2.0, g),
        "geometric" => random::geometric_(&empty(40)?, 0.2, g),
        "randint small" => random::randint(-5, 1000, &[40], g, None, None),
        "randint large" => random::randint(0, 1 << 40, &[40], g, None, None),
        "random i32" => random::random_(&factory::empty(&[40], DType::I32, Device::Cpu)?, None, None, g),
        "random u8" => random::random_(&factory::empty(&[40], DType::U8, Device::Cpu)?, None, None, g),
        "random f32" => random::random_(&empty(40)?, None, None, g),
        "randperm" => random::randperm(100, g, None, None),
        "bernoulli p" => random::bernoulli_(&empty(40)?, 0.3, g),
        "bernoulli tensor" => random::bernoulli(&full(40, 0.3)?, g),
        "multinomial" => random::multinomial(&weights()?, 3, false, g),
        "multinomial replacement" => random::multinomial(&weights()?, 30, true, g),
        "poisson" => random::poisson(&full(40, 3.0)?, g),
        "poisson large" => random::poisson(&full(40, 30.0)?, g),
        "binomial" => random::binomial(&full(40, 12.0)?, &full(40, 0.3)?, g),
        "permuted memory" => {
            random::uniform_(&view::transpose(&factory::empty(&[8, 5], DType::F32, Device::Cpu)?, 0, 1)?, 0.0, 1.0, g)
        }
        other => panic!("no case named {other}"),
    }
}

#[test]
fn streams_are_those_of_pytorch() {
    for (name, expected) in EXPECTED {
        let got =
            draw(name, &Generator::new(3)).and_then(|t| t.to_vec::<f64>()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let n = got.len();
        let got: Vec<f64> = if n <= 6 { got } else { got[..3].iter().chain(&got[n - 3..]).copied().collect() };
        assert_eq!(got.len(), expected.len(), "{name}");
        for (a, b) in got.iter().zip(*expected) {
            let tolerance = if name.contains("f16") { 1e-2 } else { 2e-6 } * (1.0 + b.abs());
            assert!((a - b).abs() <= tolerance, "{name}: {got:?}, expected {expected:?}");
        }
    }
}

#[test]
fn in_place_draws_count_as_writes() -> Result<()> {
    let x = empty(4)?;
    let before = x.version();
    random::uniform_(&x, 0.0, 1.0, None)?;
    assert_eq!(x.version(), before + 1);
    x.set_requires_grad(true)?;
    assert!(random::normal_(&x, 0.0, 1.0, None).is_err());
    Ok(())
}

#[test]
fn bad_arguments_are_refused() -> Result<()> {
    let x = empty(4)?;
    assert!(random::uniform_(&x, 1.0, 0.0, None).is_err());
    assert!(random::normal_(&x, 0.0, -1.0, None).is_err());
    assert!(random::bernoulli_(&x, 1.5, None).is_err());
    assert!(random::randint(3, 3, &[2], None, None, None).is_err());
    assert!(random::multinomial(&weights()?, 5, false, None).is_err());
    assert!(random::multinomial(&full(3, -1.0)?, 1, false, None).is_err());
    assert!(dropout::dropout(&x, 1.5, true).is_err());
    Ok(())
}

#[test]
fn recorded_reads_come_before_draws() -> Result<()> {
    let x = full(8, 2.0)?;
    let doubled = flambeau::graph::region(|| {
        let y = (&x * 2.0)?;
        random::uniform_(&x, 0.0, 1.0, None)?;
        Ok(y)
    })?;
    assert_eq!(doubled.to_vec::<f32>()?, [4.0; 8]);
    Ok(())
}
