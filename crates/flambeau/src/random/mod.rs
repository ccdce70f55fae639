//! Random streams: the Mersenne twister and the state that goes with it, so that a seed gives the numbers that PyTorch draws.
//!
//! Reference: M. Matsumoto and T. Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform pseudo-random
//! number generator", ACM TOMACS 8 (1998).

use flambeau_core::*;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{Arc, OnceLock};

const N: usize = 624;
const M: usize = 397;
/// The seed of a generator that was never seeded.
pub const DEFAULT_SEED: u64 = 67280421310721;
/// Bytes of a saved state.
pub const STATE_BYTES: usize = 5056;

/// The stream itself.
#[derive(Clone)]
pub struct Engine {
    seed: u64,
    state: [u32; N],
    /// Numbers left before the state is renewed.
    left: i32,
    next: u32,
    seeded: bool,
    /// The second of a pair of normal numbers in double precision, drawn and not given out yet.
    pub next_double_normal: Option<f64>,
    /// The same in single precision.
    pub next_float_normal: Option<f32>,
}

impl Engine {
    /// The stream that belongs to a seed (of which 32 bits count).
    pub fn new(seed: u64) -> Engine {
        let mut state = [0u32; N];
        state[0] = seed as u32;
        for j in 1..N {
            state[j] = 1812433253u32.wrapping_mul(state[j - 1] ^ (state[j - 1] >> 30)).wrapping_add(j as u32);
        }
        Engine { seed, state, left: 1, next: 0, seeded: true, next_double_normal: None, next_float_normal: None }
    }
    fn renew(&mut self) {
        let mix = |u: u32, v: u32| (u & 0x8000_0000) | (v & 0x7fff_ffff);
        let twist = |u: u32, v: u32| (mix(u, v) >> 1) ^ if v & 1 != 0 { 0x9908_b0df } else { 0 };
        for j in 0..N {
            self.state[j] = self.state[(j + M) % N] ^ twist(self.state[j], self.state[(j + 1) % N]);
        }
        self.left = N as i32;
        self.next = 0;
    }
    /// The next 32 bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.left -= 1;
        if self.left == 0 {
            self.renew();
        }
        let mut y = self.state[self.next as usize];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
    /// The next 64 bits: the first draw is the upper half.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let high = self.next_u32() as u64;
        high << 32 | self.next_u32() as u64
    }
    /// A double of `[0, 1)`: 53 of 64 bits.
    #[inline]
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / (1u64 << 53) as f64)
    }
    /// A float of `[0, 1)`: 24 of 32 bits.
    #[inline]
    pub fn unit_f32(&mut self) -> f32 {
        (self.next_u32() & ((1 << 24) - 1)) as f32 * (1.0 / (1u32 << 24) as f32)
    }
    /// A standard normal number (Box & Muller 1958); the second of each pair waits for the next call.
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.next_double_normal.take() {
            return z;
        }
        let (u1, u2) = (self.unit_f64(), self.unit_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (2.0 * std::f64::consts::PI * u1).sin_cos();
        self.next_double_normal = Some(radius * sin);
        radius * cos
    }
    /// A Poisson-distributed count: by products of uniform numbers below rate 10 (Knuth), by transformed rejection from there on
    /// (W. Hörmann, "The transformed rejection method for generating Poisson random variables", 1993, algorithm PTRS).
    pub fn poisson(&mut self, rate: f64) -> f64 {
        if rate == 0.0 {
            return 0.0;
        }
        if rate < 10.0 {
            let limit = (-rate).exp();
            let (mut count, mut product) = (0.0, 1.0);
            loop {
                product *= self.unit_f64();
                if product <= limit {
                    return count;
                }
                count += 1.0;
            }
        }
        let (log_rate, b) = (rate.ln(), 0.931 + 2.53 * rate.sqrt());
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let accept = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.unit_f64() - 0.5;
            let v = self.unit_f64();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + rate + 0.43).floor();
            if us >= 0.07 && v <= accept {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let log_factorial = ln_factorial(k);
            if v.ln() + inverse_alpha.ln() - (a / (us * us) + b).ln() <= -rate + k * log_rate - log_factorial {
                return k;
            }
        }
    }
    /// A gamma-distributed number of the given shape and scale 1 (Marsaglia & Tsang, "A simple method for generating gamma
    /// variables", 2000); shapes below 1 by the power of a uniform number.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape == 0.0 {
            return 0.0;
        }
        let (scale, shape) =
            if shape < 1.0 { ((1.0 - self.unit_f64()).powf(1.0 / shape), shape + 1.0) } else { (1.0, shape) };
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let (x, y) = loop {
                let x = self.normal();
                let y = 1.0 + c * x;
                if y > 0.0 || y.is_nan() {
                    break (x, y);
                }
            };
            let v = y * y * y;
            let u = 1.0 - self.unit_f64();
            let square = x * x;
            if u < 1.0 - 0.0331 * square * square || u.ln() < 0.5 * square + d * (1.0 - v + v.ln()) || v.is_nan() {
                return scale * d * v;
            }
        }
    }
    /// How many of `n` trials of probability `p` succeed: by the waiting times between successes (L. Devroye, "Non-uniform random
    /// variate generation", 1986, X.4) where few are expected, else by transformed rejection with squeeze, algorithm BTRS of
    /// W. Hörmann, "The generation of binomial random variates", Journal of Statistical Computation and Simulation 46, 1993.
    pub fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if n <= 0.0 || p <= 0.0 {
            return 0.0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        if p.is_nan() {
            return f64::NAN;
        }
        if n * p >= 10.0 {
            return self.binomial_by_rejection(n, p);
        }
        let log_failure = (-p).ln_1p();
        let (mut trials, mut successes) = (0.0, 0.0);
        loop {
            trials += (self.unit_f64().ln() / log_failure).ceil().max(1.0);
            if trials > n {
                return successes;
            }
            successes += 1.0;
        }
    }
    fn binomial_by_rejection(&mut self, n: f64, p: f64) -> f64 {
        let deviation = (n * p * (1.0 - p)).sqrt();
        let b = 1.15 + 2.53 * deviation;
        let a = -0.0873 + 0.0248 * b + 0.01 * p;
        let centre = n * p + 0.5;
        let squeeze = 0.92 - 4.2 / b;
        let odds = p / (1.0 - p);
        let alpha = (2.83 + 5.1 / b) * deviation;
        let mode = ((n + 1.0) * p).floor();
        loop {
            let u = self.unit_f64() - 0.5;
            let v = self.unit_f64();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + centre).floor();
            if us >= 0.07 && v <= squeeze {
                return k;
            }
            if k < 0.0 || k > n {
                continue;
            }
            let v = (v * alpha / (a / (us * us) + b)).ln();
            // The densities' ratio at k and the mode, with Stirling's tails of the factorials.
            let bound = (mode + 0.5) * ((mode + 1.0) / (odds * (n - mode + 1.0))).ln()
                + (n + 1.0) * ((n - mode + 1.0) / (n - k + 1.0)).ln()
                + (k + 0.5) * (odds * (n - k + 1.0) / (k + 1.0)).ln()
                + stirling_tail(mode)
                + stirling_tail(n - mode)
                - stirling_tail(k)
                - stirling_tail(n - k);
            if v <= bound {
                return k;
            }
        }
    }
}

/// What Stirling's formula for `ln k!`, in powers of `k + 1`, leaves: `ln k! - (k + ½) ln(k + 1) + (k + 1) - ½ ln 2π`.
fn stirling_tail(k: f64) -> f64 {
    if k < 10.0 {
        let root = 0.5 * (2.0 * std::f64::consts::PI).ln();
        return ln_factorial(k) - (k + 0.5) * (k + 1.0).ln() + (k + 1.0) - root;
    }
    let square = (k + 1.0) * (k + 1.0);
    (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / square) / square) / (k + 1.0)
}

/// `ln k!` for whole `k`: a sum below 16, Stirling's series from there on.
fn ln_factorial(k: f64) -> f64 {
    if k < 16.0 {
        return (2..=k as u32).map(|i| f64::from(i).ln()).sum();
    }
    let inverse = 1.0 / k;
    let series = inverse * (1.0 / 12.0 - inverse * inverse * (1.0 / 360.0 - inverse * inverse / 1260.0));
    (k + 0.5) * k.ln() - k + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

/// A shared, seedable source of random numbers. Cloning shares the stream.
#[derive(Clone)]
pub struct Generator(Arc<Mutex<Engine>>);

impl Generator {
    /// A stream of its own.
    pub fn new(seed: u64) -> Generator {
        Generator(Arc::new(Mutex::new(Engine::new(seed))))
    }
    /// The stream, locked for a run of draws.
    pub fn lock(&self) -> MutexGuard<'_, Engine> {
        self.0.lock()
    }
    /// Starts the stream that belongs to a seed.
    pub fn manual_seed(&self, seed: u64) {
        *self.0.lock() = Engine::new(seed);
    }
    /// The seed that the stream was started with.
    pub fn initial_seed(&self) -> u64 {
        self.0.lock().seed
    }
    /// The state as bytes, in the layout that PyTorch saves.
    pub fn state(&self) -> Vec<u8> {
        let e = self.0.lock();
        let mut out = Vec::with_capacity(STATE_BYTES);
        out.extend(e.seed.to_le_bytes());
        out.extend(e.left.to_le_bytes());
        out.extend((e.seeded as i32).to_le_bytes());
        out.extend((e.next as u64).to_le_bytes());
        for s in e.state {
            out.extend((s as u64).to_le_bytes());
        }
        // normal_x, normal_y, normal_rho, normal_is_valid (a cached pair in Box and Muller's polar form).
        out.extend(0f64.to_le_bytes());
        out.extend(e.next_double_normal.unwrap_or(0.0).to_le_bytes());
        out.extend(0f64.to_le_bytes());
        out.extend((e.next_double_normal.is_some() as i32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(e.next_float_normal.unwrap_or(0.0).to_le_bytes());
        out.push(e.next_float_normal.is_some() as u8);
        out.resize(STATE_BYTES, 0);
        out
    }
    /// Restores a state.
    ///
    /// # Errors
    /// `Runtime` when the bytes are no state.
    pub fn set_state(&self, bytes: &[u8]) -> Result<()> {
        ensure!(
            bytes.len() == STATE_BYTES,
            Runtime,
            "RNG state is wrong size: {} bytes instead of {STATE_BYTES}",
            bytes.len()
        );
        let word = |at: usize| {
            let mut b = [0u8; 8];
            b.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(b)
        };
        let int = |at: usize| word(at) as u32 as i32;
        let (left, next) = (int(8), word(16));
        ensure!((1..=N as i32).contains(&left) && next <= N as u64, Runtime, "Invalid mt19937 state");
        let mut e = Engine::new(word(0));
        for (j, s) in e.state.iter_mut().enumerate() {
            *s = word(24 + 8 * j) as u32;
        }
        e.left = left;
        e.seeded = int(12) != 0;
        e.next = next as u32;
        let at = 24 + 8 * N;
        e.next_double_normal = (int(at + 24) != 0).then(|| f64::from_bits(word(at + 8)));
        e.next_float_normal = (bytes[at + 36] != 0).then(|| f32::from_bits(word(at + 32) as u32));
        *self.0.lock() = e;
        Ok(())
    }
}

/// The generator of operators that are given none.
pub fn default_generator() -> &'static Generator {
    static DEFAULT: OnceLock<Generator> = OnceLock::new();
    DEFAULT.get_or_init(|| Generator::new(DEFAULT_SEED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_mt19937() {
        let g = Generator::new(5489);
        let mut e = g.lock();
        assert_eq!(e.next_u32(), 3499211612);
        let mut last = 0;
        for _ in 1..10000 {
            last = e.next_u32();
        }
        assert_eq!(last, 4123659995);
    }
    #[test]
    fn state_round_trip() {
        let g = Generator::new(7);
        g.lock().next_u64();
        let state = g.state();
        let a = g.lock().next_u32();
        g.set_state(&state).unwrap();
        assert_eq!(a, g.lock().next_u32());
        assert!(g.set_state(&state[1..]).is_err());
    }
}
