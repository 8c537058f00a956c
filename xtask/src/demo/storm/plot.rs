//! Packets per second over time, two panels beside each other, with a line where AWS begins to drop.

use guard_tests::storm::LIMIT_PPS;

use crate::number;

/// What a panel is wide at most: two of them, their axes and a gap make 80.
const COLUMNS: usize = 33;
/// Width of the numbers at the left.
const NUMBERS: usize = 6;
/// A storm of more than this many times the limit is cut off at the top.
const MAX_ROWS: usize = 8;

/// A cell filled from below, in eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The limit, where nothing is as high.
const LINE: char = '┄';

/// Two panels with a title each. Every row is as high as the limit, so the line lies above the lowest.
pub(crate) fn plot(panels: [(&str, &[f64]); 2]) -> String {
    let limit = f64::from(LIMIT_PPS);
    let panels = panels.map(|(title, values)| (title, columns(values).into_iter().map(|pps| pps / limit).collect()));
    let highest = panels
        .iter()
        .flat_map(|(_, values): &(_, Vec<f64>)| values)
        .copied()
        .fold(0.0, f64::max);
    let rows = (highest.ceil() as usize).clamp(2, MAX_ROWS);

    let mut text = line("", ' ', panels.each_ref().map(|(title, _)| (*title).to_owned()));
    for row in (0..rows).rev() {
        let cells = panels
            .each_ref()
            .map(|(_, values)| values.iter().map(|value| cell(value - row as f64)).collect());
        let label = match row {
            0 => "0".to_owned(),
            _ if row + 1 == rows => number::grouped(u64::from(LIMIT_PPS) * rows as u64),
            _ => String::new(),
        };
        text += &line(&label, '|', cells);
        if row == 1 {
            let cells = panels.each_ref().map(|(_, values)| {
                let over = |value: &f64| if *value > 1.0 { EIGHTHS[8] } else { LINE };
                values.iter().map(over).collect()
            });
            text += &line(&number::grouped(LIMIT_PPS.into()), '|', cells);
        }
    }
    text
}

fn line(label: &str, axis: char, [left, right]: [String; 2]) -> String {
    let line = format!("{label:>NUMBERS$} {axis}{left:<COLUMNS$}  {axis}{right}");
    format!("{}\n", line.trim_end())
}

/// What of a row is filled; a value that is not zero shows.
fn cell(rows: f64) -> char {
    let eighths = (rows * 8.0).ceil().clamp(0.0, 8.0);
    EIGHTHS[eighths as usize]
}

/// As many values as fit, each the mean of its neighbours.
fn columns(values: &[f64]) -> Vec<f64> {
    let count = values.len().min(COLUMNS);
    (0..count)
        .map(|column| {
            let part = &values[column * values.len() / count..(column + 1) * values.len() / count];
            part.iter().sum::<f64>() / part.len() as f64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_crosses_the_line() {
        let text = plot([
            ("without", &[0.0, 3_072.0, 2_560.0]),
            ("with", &[896.0, 128.0, 1_024.0]),
        ]);
        let expected = "
        without                             with
 3,072 | █▄                                |
       | ██                                |
 1,024 |┄██                                |┄┄┄
     0 | ██                                |▇▁█
";
        assert_eq!(text, expected[1..]);
    }

    #[test]
    fn many_values_become_as_many_as_fit() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let columns = columns(&values);
        assert_eq!((columns.len(), columns[0], columns[32]), (COLUMNS, 1.0, 97.5));
        assert!(
            plot([("", &values), ("", &[])])
                .lines()
                .all(|line| line.chars().count() <= 80)
        );
    }
}
