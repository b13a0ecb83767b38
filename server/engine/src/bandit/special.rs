//! The special functions that posteriors and tests are made of.

use std::f64::consts::PI;

/// Enough for distributions of a hundred million samples; the usual ones take a dozen.
const STEPS_MAX: usize = 100_000;
const PRECISION: f64 = 1e-14;
/// Instead of a zero to divide by (Lentz).
const TINY: f64 = 1e-300;

/// The logarithm of the gamma function of a positive number: Lanczos' approximation with g = 7 and nine terms.
pub fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        return (PI / (PI * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let terms = TERMS.iter().enumerate().skip(1);
    let series = terms.fold(TERMS[0], |sum, (index, term)| sum + term / (x + index as f64));
    let base = x + 7.5;
    0.5 * (2.0 * PI).ln() + (x + 0.5) * base.ln() - base + series.ln()
}

/// The regularised incomplete beta function I_x(a, b): the probability that a Beta(a, b) is at most x. By its
/// continued fraction (Abramowitz and Stegun 26.5.8; Lentz' evaluation).
pub fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let log_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    // The fraction converges fast on this side of the mean.
    let value = match x < (a + 1.0) / (a + b + 2.0) {
        true => log_front.exp() * beta_fraction(a, b, x) / a,
        false => 1.0 - log_front.exp() * beta_fraction(b, a, 1.0 - x) / b,
    };
    value.clamp(0.0, 1.0)
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..STEPS_MAX {
        let m = step as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < PRECISION {
            break;
        }
    }
    fraction
}

/// The probability that Student's t with so many degrees of freedom is at most `t`.
pub fn student_t_below(t: f64, degrees: f64) -> f64 {
    let tail = 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The probability of at least so many hits in so many trials of this probability each.
pub fn binomial_at_least(hits: u64, trials: u64, probability: f64) -> f64 {
    if hits == 0 {
        return 1.0;
    }
    incomplete_beta(hits as f64, (trials.saturating_sub(hits)) as f64 + 1.0, probability)
}

/// The probability that a chi-square of so many degrees of freedom is above `x`: the upper incomplete gamma function,
/// by its series or its continued fraction (Abramowitz and Stegun 6.5.29 and 6.5.31).
pub fn chi_square_above(x: f64, degrees: f64) -> f64 {
    let (a, x) = (degrees / 2.0, x / 2.0);
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = term;
        for step in 1..STEPS_MAX {
            term *= x / (a + step as f64);
            sum += term;
            if term < sum * PRECISION {
                break;
            }
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for step in 1..STEPS_MAX {
        let term = -(step as f64) * (step as f64 - a);
        b += 2.0;
        d = 1.0 / (term * d + b);
        c = b + term / c;
        fraction *= d * c;
        if (d * c - 1.0).abs() < PRECISION {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}
