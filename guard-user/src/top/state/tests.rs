//! An evening in front of the screen, key by key.

use super::*;
use crate::view::{KeyRow, Rate, tests::view};

/// A view with these names, each asked for so often.
pub(crate) fn view_of_keys(keys: &[(&str, f64)]) -> View {
    let row = |(name, rate): &(&str, f64)| KeyRow {
        name: (*name).to_owned(),
        qtype: "A".to_owned(),
        rate: Rate {
            queries_per_second: *rate,
            ..Rate::default()
        },
    };
    View {
        keys: keys.iter().map(row).collect(),
        ..view()
    }
}

/// A state that shows this.
pub(crate) fn state(view: View) -> State {
    let mut state = State::default();
    state.on_room(10);
    state.on_answer(Ok(view));
    state
}

/// Presses these keys one after the other.
pub(crate) fn press(state: &mut State, keys: &str) {
    keys.chars().for_each(|key| press_code(state, KeyCode::Char(key)));
}

fn press_code(state: &mut State, code: KeyCode) {
    state.on_key(KeyEvent::new(code, KeyModifiers::NONE));
}

fn names(state: &State) -> Vec<String> {
    let rows = state.rows().into_iter();
    rows.filter_map(|row| row.last().map(|cell| cell.text.clone()))
        .collect()
}

const THREE: &[(&str, f64)] = &[("b.example.", 30.0), ("a.example.", 20.0), ("c.test.", 10.0)];

#[test]
fn the_heaviest_come_first_until_somebody_wants_it_otherwise() {
    let mut state = state(view_of_keys(THREE));
    assert_eq!(names(&state), ["b.example.", "a.example.", "c.test."]);
    press(&mut state, "r");
    assert_eq!(names(&state), ["c.test.", "a.example.", "b.example."]);
    // The column before the first is the last one: the name, in the order of the alphabet.
    press(&mut state, "S");
    assert_eq!(names(&state), ["a.example.", "b.example.", "c.test."]);
    press(&mut state, ">");
    assert_eq!(names(&state), ["b.example.", "a.example.", "c.test."]);
    // Each list is sorted for itself.
    press(&mut state, "sr2");
    assert_eq!(
        (state.tab(), state.order(), state.is_descending()),
        (Tab::Zones, 0, true)
    );
    press(&mut state, "1");
    assert_eq!(
        (state.tab(), state.order(), state.is_descending()),
        (Tab::Keys, 1, false)
    );
}

#[test]
fn a_filter_narrows_as_it_is_typed() {
    let mut state = state(view_of_keys(THREE));
    press(&mut state, "/EXA");
    assert_eq!(names(&state), ["b.example.", "a.example."]);
    // While it is typed, letters are letters.
    press(&mut state, "q");
    assert!(!state.is_over() && names(&state).is_empty());
    press_code(&mut state, KeyCode::Backspace);
    press_code(&mut state, KeyCode::Enter);
    assert_eq!((state.focus(), state.filter()), (Focus::List, "EXA"));
    press_code(&mut state, KeyCode::Esc);
    assert_eq!(names(&state).len(), 3);
    press(&mut state, "/c.t");
    press_code(&mut state, KeyCode::Esc);
    assert_eq!((state.focus(), names(&state).len()), (Focus::List, 3));
}

#[test]
fn what_is_paused_stands_still_and_then_catches_up() {
    let mut state = state(view_of_keys(THREE));
    press(&mut state, "p");
    state.on_answer(Ok(view_of_keys(&[("new.", 1.0)])));
    assert!(state.is_paused());
    assert_eq!(names(&state).len(), 3);
    press(&mut state, " ");
    assert!(!state.is_paused());
    assert_eq!(names(&state), ["new."]);
    // Nothing came meanwhile: what is shown stays.
    press(&mut state, "pp");
    assert_eq!(names(&state), ["new."]);
}

#[test]
fn the_last_view_outlives_the_agent() {
    let mut state = state(view_of_keys(THREE));
    state.on_answer(Err("no agent answers".to_owned()));
    assert_eq!((state.trouble(), names(&state).len()), (Some("no agent answers"), 3));
    state.on_answer(Ok(view_of_keys(&[("back.", 1.0)])));
    assert_eq!((state.trouble(), names(&state)), (None, vec!["back.".to_owned()]));
}

#[test]
fn the_help_is_closed_by_any_key() {
    for key in ['?', 'h'] {
        let mut state = state(view());
        press(&mut state, &key.to_string());
        assert_eq!(state.focus(), Focus::Help);
        press(&mut state, "q");
        assert_eq!((state.focus(), state.is_over()), (Focus::List, false));
    }
}

#[test]
fn tabs_go_round() {
    let mut state = state(view());
    press(&mut state, "5");
    assert_eq!(state.tab(), Tab::Loops);
    press_code(&mut state, KeyCode::Tab);
    assert_eq!(state.tab(), Tab::Keys);
    press_code(&mut state, KeyCode::Left);
    assert_eq!(state.tab(), Tab::Loops);
    press_code(&mut state, KeyCode::BackTab);
    press_code(&mut state, KeyCode::Right);
    assert_eq!(state.tab(), Tab::Loops);
}

#[test]
fn nobody_scrolls_past_the_end() {
    let keys: Vec<_> = (0..25).map(|rank| ("x.", 100.0 - f64::from(rank))).collect();
    let mut state = state(view_of_keys(&keys));
    press_code(&mut state, KeyCode::Up);
    assert_eq!(state.offset(), 0);
    press_code(&mut state, KeyCode::PageDown);
    press_code(&mut state, KeyCode::Down);
    assert_eq!(state.offset(), 11);
    press_code(&mut state, KeyCode::PageDown);
    assert_eq!(state.offset(), 15);
    press_code(&mut state, KeyCode::PageUp);
    assert_eq!(state.offset(), 5);
    press_code(&mut state, KeyCode::End);
    assert_eq!(state.offset(), 15);
    // Fewer rows, or a larger window.
    state.on_answer(Ok(view_of_keys(&keys[..12])));
    assert_eq!(state.offset(), 2);
    state.on_room(40);
    assert_eq!(state.offset(), 0);
}

#[test]
fn control_c_ends_it_wherever_keys_go() {
    for keys in ["", "/", "?"] {
        let mut state = state(view());
        press(&mut state, keys);
        state.on_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(state.is_over(), "after {keys:?}");
    }
    let mut state = state(view());
    press(&mut state, "q");
    assert!(state.is_over());
}

#[test]
fn a_key_that_is_let_go_does_nothing() {
    let mut state = state(view());
    let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    key.kind = KeyEventKind::Release;
    state.on_key(key);
    assert!(!state.is_over());
}
