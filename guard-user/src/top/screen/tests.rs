//! What is drawn, letter by letter, at the sizes that terminals have.

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::*;
use crate::{
    top::state::tests::{press, state, view_of_keys},
    view::tests::view,
};

fn draw_at(width: u16, height: u16, state: &mut State, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let area = Rect::new(0, 0, width, height);
    state.on_room(room(area, state));
    terminal.draw(|frame| draw(frame, state, theme)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let rows = cells.chunks(buffer.area.width.into());
    rows.map(|row| row.concat().trim_end().to_owned()).collect()
}

fn drawn(width: u16, height: u16, keys: &str) -> Vec<String> {
    let mut state = state(view());
    press(&mut state, keys);
    lines(&draw_at(width, height, &mut state, Theme::new(true)))
}

const LOST: &str = "no agent answers at http://127.0.0.1:9533: Connection refused (os error 111); is dnsguard running?";

#[test]
fn a_loop_is_seen_at_a_glance() {
    let expected = [
        "dnsguard ENFORCE on eth0, up 1s                                     22:13:21 UTC",
        "    5000 queries/s                                                             █",
        "    4000 held/s  30 shed/s  loops 1  pass 970/s  answer 0/s  drop 4030/s",
        "1 Keys  2 Zones  3 Clients  4 Budgets  5 Loops (1)",
        " HELD▼   LEFT  OPEN  LEVEL  PROOF   EVIDENCE  DEVICE  TYPE  NAME",
        "140000  3.0 s    2s      2  proven  mark      eth0    A     x.consul.",
    ];
    let lines = drawn(80, 24, "5");
    assert_eq!(lines[..6], expected);
    assert_eq!(
        lines[23],
        "q quit  ? help  / filter  p pause  s sort  r reverse  Tab next list"
    );
}

#[test]
fn a_narrow_terminal_has_fewer_columns_and_never_half_of_one() {
    let expected = [
        "dnsguard ENFORCE on eth0, up 1s       22:13:21 UTC",
        "    5000 queries/s                               █",
        "    4000 held/s  30 shed/s  loops 1  pass 970/s",
        "1 Key 2 Zon 3 Cli 4 Budgets 5 Loops (1)",
        "LIMIT/S  WITHIN/S  OVER/S▼  OVER  BUDGET",
        "    200       100       30    37  per client",
        "    900       811        0     -  eth0 link-local",
    ];
    assert_eq!(drawn(50, 12, "4")[..7], expected);
    let expected = [
        "dnsguard ENFORCE on eth0     22:13:21 UTC",
        "    5000 queries/s                      █",
        "    4000 held/s  30 shed/s  loops 1",
        "1 Key 2 Zon 3 Cli 4 Bud 5 Loops (1)",
        " HELD▼   LEFT  PROOF   TYPE  NAME",
        "140000  3.0 s  proven  A     x.consul.",
    ];
    assert_eq!(drawn(41, 10, "5")[..6], expected);
    assert!(drawn(39, 10, "").concat().contains("39x10 is too small"));
    assert!(drawn(80, 9, "").concat().contains("80x9 is too small"));
    assert!(drawn(5, 2, "")[0].starts_with("5x2"));
}

#[test]
fn no_size_and_no_list_breaks_it() {
    for (width, height) in [(1, 1), (40, 10), (40, 60), (41, 11), (79, 24), (200, 10), (300, 80)] {
        for keys in ["1", "2", "3", "4", "5", "?", "/con", "p", "SSSS"] {
            let mut state = state(view());
            press(&mut state, keys);
            state.on_answer(Err(LOST.to_owned()));
            assert_eq!(
                lines(&draw_at(width, height, &mut state, Theme::new(true))).len(),
                usize::from(height)
            );
        }
    }
}

#[test]
fn a_name_that_is_too_long_ends_in_dots() {
    let long = format!("{}.example.", "x".repeat(60));
    let mut state = state(view_of_keys(&[(&long, 5.0)]));
    let shown = lines(&draw_at(60, 12, &mut state, Theme::new(true)));
    assert!(shown[5].ends_with("xxx…"), "{}", shown[5]);
    assert!(shown[5].chars().count() <= 60, "{}", shown[5]);
}

#[test]
fn more_rows_than_lines_are_counted() {
    let names: Vec<_> = (0..30).map(|rank| format!("n{rank:02}.")).collect();
    let keys: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    let mut state = state(view_of_keys(&keys));
    draw_at(80, 16, &mut state, Theme::new(true));
    let down = ratatui::crossterm::event::KeyCode::Down;
    state.on_key(down.into());
    let shown = lines(&draw_at(80, 16, &mut state, Theme::new(true)));
    assert!(shown[5].ends_with("n01.") && shown[14].ends_with("n10."), "{shown:?}");
    assert!(shown[15].starts_with("2-11 of 30  q quit"), "{}", shown[15]);
}

#[test]
fn a_lost_agent_is_said_and_what_it_said_last_is_dimmed() {
    let mut state = state(view());
    press(&mut state, "5");
    state.on_answer(Err(LOST.to_owned()));
    let buffer = draw_at(80, 24, &mut state, Theme::new(true));
    let shown = lines(&buffer);
    assert_eq!(
        shown[21],
        "AGENT LOST, trying again: no agent answers at http://127.0.0.1:9533: Connection"
    );
    assert_eq!(shown[22], "refused (os error 111); is dnsguard running?");
    assert!(shown[5].ends_with("x.consul."), "{}", shown[5]);
    assert!(buffer[(0, 5)].modifier.contains(Modifier::DIM));
    state.on_answer(Ok(view()));
    let buffer = draw_at(80, 24, &mut state, Theme::new(true));
    assert!(!buffer[(0, 5)].modifier.contains(Modifier::DIM));
    assert!(!lines(&buffer).concat().contains("AGENT LOST"));
}

#[test]
fn a_pause_is_said_with_the_time_that_is_shown() {
    assert!(drawn(80, 24, "p")[0].ends_with("PAUSED 22:13:21 UTC"));
    assert!(drawn(40, 10, "p")[0].ends_with("PAUSED 22:13:21 UTC"));
    assert!(!drawn(80, 24, "pp").concat().contains("PAUSED"));
}

#[test]
fn a_filter_stands_where_it_is_typed_and_stays_in_sight() {
    assert_eq!(drawn(80, 24, "/con")[23], "/con");
    let mut state = state(view());
    press(&mut state, "/nobody");
    state.on_key(ratatui::crossterm::event::KeyCode::Enter.into());
    let shown = lines(&draw_at(80, 24, &mut state, Theme::new(true)));
    assert!(shown[23].starts_with("filter: nobody  q quit"), "{}", shown[23]);
    assert_eq!(shown[5], "none contains nobody");
}

#[test]
fn the_help_names_every_key() {
    for (width, height) in [(80, 24), (40, 10)] {
        let shown = drawn(width, height, "?").join("\n");
        for key in ["1-5 Tab", "sort", "reverse", "filter", "pause", "scroll", "quit"] {
            assert!(shown.contains(key), "{key} at {width}x{height}:\n{shown}");
        }
    }
}

#[test]
fn without_colours_there_are_none() {
    let mut observing = view();
    observing.mode = "observe".to_owned();
    let mut is_coloured = false;
    for view in [view(), observing] {
        for keys in ["1", "4", "5", "p", "/x", "?"] {
            for theme in [Theme::new(false), Theme::new(true)] {
                let mut state = state(view.clone());
                press(&mut state, keys);
                state.on_answer(Err(LOST.to_owned()));
                let buffer = draw_at(80, 24, &mut state, theme);
                let colours = buffer
                    .content()
                    .iter()
                    .any(|cell| (cell.fg, cell.bg) != (Color::Reset, Color::Reset));
                assert!(!colours || theme.accent.fg.is_some(), "{keys}");
                is_coloured |= colours;
            }
        }
    }
    assert!(is_coloured);
}

#[test]
fn before_the_agent_has_said_anything_there_is_nothing_but_that() {
    let mut state = State::default();
    state.on_answer(Err(LOST.to_owned()));
    let shown = lines(&draw_at(80, 24, &mut state, Theme::new(true)));
    assert!(shown[0].is_empty() && shown[21].starts_with("AGENT LOST"), "{shown:?}");
}
