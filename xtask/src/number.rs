//! Numbers as a person reads them.

/// A tick of the kernel's coarse clock, which stamps packets: 250 of them make a second.
const TICK_MS: u64 = 4;

/// `141,203`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: whole packets, but a rate that is not zero never reads as zero.
pub(crate) fn rate(pps: f64) -> String {
    if pps > 0.0 && pps < 9.95 {
        format!("{:.1}", pps.max(0.1))
    } else {
        grouped(pps.round() as u64)
    }
}

/// A share of good clients.
pub(crate) fn share(ratio: f64) -> String {
    format!("{} %", percent(ratio))
}

/// A share of good clients in percent. Rounded down: 100 means all.
pub(crate) fn percent(ratio: f64) -> String {
    if ratio >= 1.0 {
        "100".to_owned()
    } else {
        format!("{:.1}", (ratio * 1_000.0).floor() / 10.0)
    }
}

/// Part of one processor core; may be above 100 %.
pub(crate) fn cores(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

/// Microseconds as milliseconds, with three digits that count.
pub(crate) fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1_000.0;
    match us {
        0..1_000 => format!("{ms:.2} ms"),
        1_000..100_000 => format!("{ms:.1} ms"),
        _ => format!("{} ms", grouped(ms.round() as u64)),
    }
}

/// How long a cut took. The clock ticks every 4 ms, so 0 only says that it did not tick.
pub(crate) fn cut(ms: u64) -> String {
    if ms < TICK_MS {
        format!("< {TICK_MS} ms")
    } else {
        format!("{} ms", grouped(ms))
    }
}

/// `1 query`, `11 queries`
pub(crate) fn queries(count: u64) -> String {
    let noun = if count == 1 { "query" } else { "queries" };
    format!("{} {noun}", grouped(count))
}

/// `1 packet`, `12,528 packets`
pub(crate) fn packets(count: u64) -> String {
    let noun = if count == 1 { "packet" } else { "packets" };
    format!("{} {noun}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn only_nothing_reads_as_nothing() {
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(0.01), "0.1");
        assert_eq!(rate(9.94), "9.9");
        assert_eq!(rate(9.96), "10");
        assert_eq!(rate(141_203.4), "141,203");
    }

    #[test]
    fn only_all_reads_as_all() {
        assert_eq!(share(1.0), "100 %");
        assert_eq!(share(0.999_99), "99.9 %");
        assert_eq!(share(0.0), "0.0 %");
    }

    #[test]
    fn times_keep_the_digits_that_count() {
        assert_eq!(milliseconds(384), "0.38 ms");
        assert_eq!(milliseconds(1_250), "1.2 ms");
        assert_eq!(milliseconds(999_500), "1,000 ms");
        assert_eq!(cut(0), "< 4 ms");
        assert_eq!(cut(4), "4 ms");
    }
}
