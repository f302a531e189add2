//! Medians and quantiles.

/// The middle of some numbers, zero if there are none.
pub fn median(numbers: &[f64]) -> f64 {
    let sorted = sorted(numbers);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The number that the share `part` of them does not exceed, zero if there are none.
pub fn quantile(numbers: &[f64], part: f64) -> f64 {
    let sorted = sorted(numbers);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Between which of the numbers the middle of what they were drawn from lies, in at least 95 of 100
/// cases whatever its distribution: by how seldom so many of them would fall on one side.
pub fn interval(numbers: &[f64]) -> [f64; 2] {
    let sorted = sorted(numbers);
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return [0.0; 2] };
    // Of a fair coin: the chance of at most `left` heads, both sides together.
    let (mut left, mut chance, mut term) = (0, 0.0, 0.5_f64.powi(sorted.len() as i32));
    while left < sorted.len() / 2 {
        chance += term;
        if 2.0 * chance > 0.05 {
            break;
        }
        term *= (sorted.len() - left) as f64 / (left + 1) as f64;
        left += 1;
    }
    match left.checked_sub(1) {
        Some(at) => [sorted[at], sorted[sorted.len() - 1 - at]],
        None => [*first, *last],
    }
}

fn sorted(numbers: &[f64]) -> Vec<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn the_interval_of_fifteen_is_between_the_fourth_and_the_twelfth() {
        let numbers: Vec<f64> = (1..=15).map(f64::from).collect();
        assert_eq!(interval(&numbers), [4.0, 12.0]);
        assert_eq!(interval(&[2.0, 1.0]), [1.0, 2.0]);
        assert_eq!(interval(&[]), [0.0, 0.0]);
    }

    #[test]
    fn a_quantile_is_one_of_the_numbers() {
        let numbers: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&numbers, 0.99), 198.0);
        assert_eq!(quantile(&numbers, 1.0), 200.0);
        assert_eq!(quantile(&numbers, 0.0), 1.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
