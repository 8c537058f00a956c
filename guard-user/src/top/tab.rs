//! The lists that can be looked at: their columns, and the rows that a view has for them.

use std::cmp::Ordering;

use crate::{
    print::harmless,
    view::{BudgetRow, ClientRow, LinkRow, LoopRow, Rate, View},
};

/// A list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    /// Names and types.
    #[default]
    Keys,
    /// Zones.
    Zones,
    /// Clients.
    Clients,
    /// Budgets, and the link-local budget of each interface.
    Budgets,
    /// Open breakers.
    Loops,
}

/// A column of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its heading.
    pub(super) title: &'static str,
    /// Numbers stand at the right, and the greatest come first.
    pub(super) is_number: bool,
    /// Where there is no room for all columns, those with the greatest rank go first. One of rank 0 stays.
    pub(super) rank: u8,
}

/// What stands in a column of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    /// What is shown: harmless.
    pub(super) text: String,
    /// What is sorted by, if it is a number.
    number: Option<f64>,
}

/// A line of a list, one cell for each column.
pub(super) type Row = Vec<Cell>;

const fn number(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        is_number: true,
        rank,
    }
}

const fn text(title: &'static str, rank: u8) -> Column {
    Column {
        title,
        is_number: false,
        rank,
    }
}

/// What every list of who asks begins with.
const RATE: [Column; 4] = [
    number("QUERIES/S", 0),
    number("+-", 3),
    number("SHARE", 1),
    number("+-%", 4),
];

const KEYS: &[Column] = &[RATE[0], RATE[1], RATE[2], RATE[3], text("TYPE", 2), text("NAME", 0)];
const ZONES: &[Column] = &[RATE[0], RATE[1], RATE[2], RATE[3], text("ZONE", 0)];
const CLIENTS: &[Column] = &[RATE[0], RATE[1], RATE[2], RATE[3], text("CLIENT", 0)];
const BUDGETS: &[Column] = &[
    number("LIMIT/S", 0),
    number("WITHIN/S", 2),
    number("OVER/S", 0),
    number("PEAK/S", 5),
    number("WITHIN", 4),
    number("OVER", 3),
    text("BUDGET", 0),
];
const LOOPS: &[Column] = &[
    number("HELD", 0),
    number("LEFT", 1),
    number("OPEN", 4),
    number("LEVEL", 7),
    text("PROOF", 3),
    text("EVIDENCE", 6),
    text("DEVICE", 5),
    text("TYPE", 2),
    text("NAME", 0),
];

impl Tab {
    /// All of them, in the order in which they stand.
    pub(super) const ALL: [Self; 5] = [Self::Keys, Self::Zones, Self::Clients, Self::Budgets, Self::Loops];

    /// What it is called.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Keys => "Keys",
            Self::Zones => "Zones",
            Self::Clients => "Clients",
            Self::Budgets => "Budgets",
            Self::Loops => "Loops",
        }
    }

    /// What is said where it has no rows.
    pub(super) const fn nothing(self) -> &'static str {
        match self {
            Self::Keys | Self::Zones | Self::Clients => "none stands out",
            Self::Budgets => "none is configured",
            Self::Loops => "none is open",
        }
    }

    /// Its columns; the last one has the name and takes what room is left.
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Keys => KEYS,
            Self::Zones => ZONES,
            Self::Clients => CLIENTS,
            Self::Budgets => BUDGETS,
            Self::Loops => LOOPS,
        }
    }

    /// The column that it is sorted by at first.
    pub(super) const fn first_order(self) -> usize {
        match self {
            Self::Keys | Self::Zones | Self::Clients | Self::Loops => 0,
            // What is over stands above what is not.
            Self::Budgets => 2,
        }
    }

    /// What a view has for it, in the view's own order.
    pub(super) fn rows(self, view: &View) -> Vec<Row> {
        match self {
            Self::Keys => {
                let keys = view.keys.iter();
                keys.map(|row| who(row.rate, [word(&row.qtype), word(&row.name)]))
                    .collect()
            }
            Self::Zones => view.zones.iter().map(|row| who(row.rate, [word(&row.zone)])).collect(),
            Self::Clients => view
                .clients
                .iter()
                .map(|row| who(row.rate, [word(&client(row))]))
                .collect(),
            Self::Budgets => {
                let links = view.links.iter().map(link);
                view.budgets.iter().map(budget).chain(links).collect()
            }
            Self::Loops => view.loops.iter().map(breaker).collect(),
        }
    }
}

/// How wide each column is with its heading and these rows.
pub(super) fn widths(columns: &[Column], rows: &[Row]) -> Vec<usize> {
    let widest = |(index, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| row[index].text.len());
        cells.chain([column.title.len()]).max().unwrap_or(0)
    };
    columns.iter().enumerate().map(widest).collect()
}

impl Cell {
    /// How two cells of a column compare: as numbers, else as texts. What has no number is less than any.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => self.text.to_ascii_lowercase().cmp(&other.text.to_ascii_lowercase()),
        }
    }
}

/// Its address, and the pod that has it.
fn client(row: &ClientRow) -> String {
    match &row.pod {
        Some(pod) => format!("{} {pod}", row.client),
        None => row.client.clone(),
    }
}

fn who<const N: usize>(rate: Rate, names: [Cell; N]) -> Row {
    let percent = |share: f64| cell(share, format!("{:.1} %", share * 100.0));
    let numbers = [
        cell(rate.queries_per_second, format!("{:.1}", rate.queries_per_second)),
        cell(rate.error_per_second, format!("{:.1}", rate.error_per_second)),
        percent(rate.share),
        percent(rate.share_error),
    ];
    numbers.into_iter().chain(names).collect()
}

fn budget(row: &BudgetRow) -> Row {
    vec![
        cell(row.limit_packets_per_second, row.limit_packets_per_second.to_string()),
        whole(row.within_per_second),
        whole(row.over_per_second),
        nothing(),
        whole(row.within as f64),
        whole(row.over as f64),
        word(&row.budget),
    ]
}

fn link(row: &LinkRow) -> Row {
    let over = (row.packets_per_second - row.limit_packets_per_second).max(0.0);
    vec![
        cell(row.limit_packets_per_second, row.limit_packets_per_second.to_string()),
        whole(row.packets_per_second - over),
        whole(over),
        whole(row.peak_packets_per_second),
        nothing(),
        nothing(),
        word(&format!("{} link-local", row.device)),
    ]
}

fn breaker(row: &LoopRow) -> Row {
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let left = if row.hold_left_ms == 0 {
        "testing".to_owned()
    } else {
        format!("{:.1} s", seconds(row.hold_left_ms))
    };
    vec![
        whole(row.held as f64),
        cell(seconds(row.hold_left_ms), left),
        cell(seconds(row.age_ms), duration(row.age_ms / 1_000)),
        whole(f64::from(row.level)),
        word(&row.proof),
        word(&row.evidence),
        word(&row.device),
        word(&row.qtype),
        word(&row.name),
    ]
}

/// A number of seconds, in the two units that say most: `42s`, `3m05s`, `2h07m`, `4d03h`.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn cell(number: f64, text: String) -> Cell {
    Cell {
        text,
        number: Some(number),
    }
}

fn whole(number: f64) -> Cell {
    cell(number, format!("{number:.0}"))
}

fn word(text: &str) -> Cell {
    Cell {
        text: harmless(text).into_owned(),
        number: None,
    }
}

fn nothing() -> Cell {
    Cell {
        text: "-".to_owned(),
        number: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::view;

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        for tab in Tab::ALL {
            let rows = tab.rows(&view());
            assert!(!rows.is_empty(), "{tab:?}");
            for row in rows {
                assert_eq!(row.len(), tab.columns().len(), "{tab:?}");
                for (column, cell) in tab.columns().iter().zip(row) {
                    assert!(column.is_number || cell.number.is_none(), "{tab:?} {}", column.title);
                }
            }
            assert!(tab.columns()[tab.first_order()].is_number, "{tab:?}");
            assert_eq!(
                tab.columns().last().map(|column| (column.is_number, column.rank)),
                Some((false, 0))
            );
        }
    }

    #[test]
    fn a_link_that_sends_too_much_is_over_by_the_rest() {
        let mut view = view();
        view.links[0].packets_per_second = 1_000.0;
        let rows = Tab::Budgets.rows(&view);
        let texts: Vec<_> = rows[1].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(texts, ["900", "900", "100", "875", "-", "-", "eth0 link-local"]);
    }

    #[test]
    fn a_hold_that_is_over_waits_for_its_test() {
        let mut view = view();
        assert_eq!(Tab::Loops.rows(&view)[0][1].text, "3.0 s");
        view.loops[0].hold_left_ms = 0;
        assert_eq!(Tab::Loops.rows(&view)[0][1].text, "testing");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (185, "3m05s"),
            (7_620, "2h07m"),
            (356_400, "4d03h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let mut view = view();
        view.loops[0].name = "\u{1b}[2J.".to_owned();
        assert_eq!(Tab::Loops.rows(&view)[0][8].text, "\\u{1b}[2J.");
    }
}
