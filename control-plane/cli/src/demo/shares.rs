//! Whether a share of requests is what it should be.

/// How far from the expected count a share may be: 3 standard deviations of the binomial distribution. A share of 0
/// or of everything allows nothing.
pub(super) fn within_three_sigma(count: u64, of: u64, share: f64) -> bool {
    let (low, high) = bounds(of, share);
    (low..=high).contains(&(count as f64))
}

/// The counts between which a share passes, for telling.
pub(super) fn bounds(of: u64, share: f64) -> (f64, f64) {
    let n = of as f64;
    let sigma = (n * share * (1.0 - share)).sqrt();
    (n * share - 3.0 * sigma, n * share + 3.0 * sigma)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_2000_is_160_to_240() {
        // sigma = sqrt(2000 * 0.1 * 0.9) = 13.42; 3 sigma = 40.2
        for (count, passes) in [(159, false), (160, true), (200, true), (240, true), (241, false)] {
            assert_eq!(within_three_sigma(count, 2000, 0.1), passes, "{count}");
        }
    }

    #[test]
    fn nothing_and_everything_allow_no_exception() {
        assert!(within_three_sigma(0, 5000, 0.0));
        assert!(!within_three_sigma(1, 5000, 0.0));
        assert!(within_three_sigma(5000, 5000, 1.0));
        assert!(!within_three_sigma(4999, 5000, 1.0));
    }
}
