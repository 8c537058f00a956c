//! The ratios of the packets as bars, for a page: SVG, with whatever letters the reader's system has.

use std::fmt::Write as _;

use super::{
    goals,
    record::{PacketRecord, Record},
};
use crate::number::grouped;

/// What is shown of all that is measured: a packet, and how many keys are alive.
const SHOWN: [(&str, u32); 13] = [
    ("ARP", 1),
    ("TCP, not DNS", 1),
    ("UDP, not DNS", 1),
    ("query, 20 bytes", 1),
    ("query, 20 bytes", 1_000),
    ("query, 20 bytes", 100_000),
    ("query, 20 bytes", 1_000_000),
    ("query, 60 bytes", 1),
    ("query, 206 bytes", 1),
    ("query, 255 bytes", 1),
    ("response, 20 bytes", 1),
    ("held, dropped, 20 bytes", 1),
    ("held, answered, 20 bytes", 1),
];

/// Told apart by those who see few colours as well (Okabe and Ito).
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#009e73"];
/// Read on white and on black.
const INK: &str = "#768390";

const WIDTH: f64 = 860.0;
/// Where the bars begin, and how much is kept free for the figure behind the longest.
const LEFT: f64 = 240.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 40.0;
const BAR: f64 = 9.0;
const GAP: f64 = 9.0;

/// None if nothing of what is shown was measured.
pub(super) fn plot(records: &[Record]) -> Option<String> {
    let programs = goals::programs(records);
    let ratio = |program: &str, (name, live_keys): (&str, u32)| {
        records.iter().find_map(|record| match record {
            Record::Packet(PacketRecord {
                program: of,
                packet,
                live_keys: keys,
                ratio_to_empty,
                ..
            }) if of == program && packet == name && *keys == live_keys => Some(*ratio_to_empty),
            _ => None,
        })
    };
    let rows: Vec<_> = SHOWN
        .into_iter()
        .map(|shown| {
            (
                shown,
                programs.iter().map(|program| ratio(program, shown)).collect::<Vec<_>>(),
            )
        })
        .filter(|(_, ratios)| ratios.iter().any(Option::is_some))
        .collect();
    let longest = rows
        .iter()
        .flat_map(|(_, ratios)| ratios)
        .flatten()
        .copied()
        .fold(0.0, f64::max);
    if longest == 0.0 {
        return None;
    }
    let row_height = BAR * programs.len() as f64 + GAP;
    let height = TOP + row_height * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n<title>What a packet costs, in empty programs</title>\n"
    );
    for (index, program) in programs.iter().enumerate() {
        let x = LEFT + 150.0 * index as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"20\">{program}</text>",
            COLOURS[index % COLOURS.len()],
            x + 18.0
        );
    }
    for (row, ((name, live_keys), ratios)) in rows.iter().enumerate() {
        let y = TOP + row_height * row as f64;
        let keys = match live_keys {
            1 => String::new(),
            keys => format!(", {} keys", grouped((*keys).into())),
        };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}{keys}</text>",
            LEFT - 8.0,
            y + (row_height - GAP) / 2.0 + 4.0
        );
        for (index, ratio) in ratios.iter().enumerate() {
            let Some(ratio) = ratio else { continue };
            let y = y + BAR * index as f64;
            let length = ratio / longest * (WIDTH - LEFT - RIGHT);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\">{ratio:.1}</text>",
                BAR - 1.0,
                COLOURS[index % COLOURS.len()],
                LEFT + length + 4.0,
                y + BAR - 1.5
            );
        }
    }
    svg += "</svg>\n";
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::table::tests::some;

    #[test]
    fn each_packet_has_a_bar_as_long_as_its_ratio() {
        let svg = plot(&some()).unwrap();
        // The longest takes all there is.
        assert!(svg.contains("width=\"560.0\""), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", 1.17 / 8.0 * 560.0)), "{svg}");
        assert!(svg.contains(">query, 20 bytes, 1,000,000 keys<"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn nothing_is_no_plot() {
        assert_eq!(plot(&[]), None);
    }
}
