//! What the live screen shows and what keys do to it. It draws nothing, and has no clock and no connection.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::tab::{Row, Tab};
use crate::view::View;

/// Letters of a filter: longer than any name is of no use.
const MAX_FILTER: usize = 255;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    tab: Tab,
    lists: [List; Tab::ALL.len()],
    filter: String,
    focus: Focus,
    /// What is shown.
    view: Option<View>,
    /// What came while what is shown stood still; `None` unless it does.
    paused: Option<Box<Paused>>,
    trouble: Option<String>,
    /// Rows that there is room for.
    room: usize,
    is_over: bool,
}

/// How one list is looked at.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    /// The column it is sorted by; `None` until somebody has chosen one.
    order: Option<usize>,
    is_reversed: bool,
    /// The first row that is shown.
    offset: usize,
}

/// Where keys go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Focus {
    /// To the list.
    #[default]
    List,
    /// Into the filter.
    Filter,
    /// Any of them closes the help.
    Help,
}

/// What is shown once the screen goes on.
#[derive(Debug, Default)]
struct Paused {
    newest: Option<View>,
}

impl State {
    /// Takes in what the agent says, or why it says nothing.
    pub(super) fn on_answer(&mut self, answer: Result<View, String>) {
        match answer {
            Ok(view) => {
                self.trouble = None;
                match &mut self.paused {
                    Some(paused) => paused.newest = Some(view),
                    None => self.view = Some(view),
                }
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
        self.clamp();
    }

    /// Takes in that so many rows can be shown.
    pub(super) fn on_room(&mut self, room: usize) {
        self.room = room;
        self.clamp();
    }

    /// Takes in a key.
    pub(super) fn on_key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            self.is_over = true;
            return;
        }
        match self.focus {
            Focus::Help => self.focus = Focus::List,
            Focus::Filter => self.type_filter(key.code, is_control),
            Focus::List if is_control => {}
            Focus::List => self.command(key.code),
        }
        self.clamp();
    }

    fn command(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Char('?' | 'h') => self.focus = Focus::Help,
            KeyCode::Char('/') => self.focus = Focus::Filter,
            KeyCode::Char('p' | ' ') => self.pause(),
            KeyCode::Char('s' | '>') => self.sort_by_next(1),
            KeyCode::Char('S' | '<') => self.sort_by_next(self.tab.columns().len() - 1),
            KeyCode::Char('r') => self.list_mut().is_reversed ^= true,
            KeyCode::Char(digit @ '1'..='5') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up => self.scroll_to(self.offset().saturating_sub(1)),
            KeyCode::Down => self.scroll_to(self.offset() + 1),
            KeyCode::PageUp => self.scroll_to(self.offset().saturating_sub(self.room)),
            KeyCode::PageDown => self.scroll_to(self.offset() + self.room),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => {}
        }
    }

    fn type_filter(&mut self, code: KeyCode, is_control: bool) {
        match code {
            KeyCode::Esc => {
                self.filter.clear();
                self.focus = Focus::List;
            }
            KeyCode::Enter => self.focus = Focus::List,
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char('u') if is_control => self.filter.clear(),
            // What is shown is harmless, hence ASCII: no other letter can be found.
            KeyCode::Char(letter)
                if !is_control && self.filter.len() < MAX_FILTER && (letter == ' ' || letter.is_ascii_graphic()) =>
            {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    fn pause(&mut self) {
        self.paused = match self.paused.take() {
            Some(paused) => {
                self.view = paused.newest.or_else(|| self.view.take());
                None
            }
            None => Some(Box::default()),
        };
    }

    fn sort_by_next(&mut self, steps: usize) {
        let next = (self.order() + steps) % self.tab.columns().len();
        let list = self.list_mut();
        (list.order, list.is_reversed) = (Some(next), false);
    }

    fn turn(&mut self, steps: usize) {
        self.tab = Tab::ALL[(self.tab as usize + steps) % Tab::ALL.len()];
    }

    fn scroll_to(&mut self, offset: usize) {
        self.list_mut().offset = offset;
    }

    fn clamp(&mut self) {
        let last = self.rows().len().saturating_sub(self.room.max(1));
        let list = self.list_mut();
        list.offset = list.offset.min(last);
    }

    /// The rows of the list that pass the filter, sorted.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(view) = &self.view else {
            return Vec::new();
        };
        let mut rows = self.tab.rows(view);
        let wanted = self.filter.to_ascii_lowercase();
        let columns = self.tab.columns();
        rows.retain(|row| {
            let words = columns.iter().zip(row).filter(|(column, _)| !column.is_number);
            wanted.is_empty()
                || words
                    .into_iter()
                    .any(|(_, cell)| cell.text.to_ascii_lowercase().contains(&wanted))
        });
        let order = self.order();
        // Equal ones stay as the agent has them.
        rows.sort_by(|one, other| self.compare(one, other, order));
        rows
    }

    fn compare(&self, one: &Row, other: &Row, order: usize) -> Ordering {
        let ordering = one[order].order(&other[order]);
        if self.is_descending() {
            ordering.reverse()
        } else {
            ordering
        }
    }

    /// The list that is looked at.
    pub(super) const fn tab(&self) -> Tab {
        self.tab
    }

    /// The column that it is sorted by.
    pub(super) fn order(&self) -> usize {
        self.list().order.unwrap_or_else(|| self.tab.first_order())
    }

    /// Whether the greatest come first.
    pub(super) fn is_descending(&self) -> bool {
        self.tab.columns()[self.order()].is_number != self.list().is_reversed
    }

    /// The first of the rows that is shown.
    pub(super) fn offset(&self) -> usize {
        self.list().offset
    }

    /// Rows that there is room for.
    pub(super) const fn room(&self) -> usize {
        self.room
    }

    /// What rows must contain; empty: anything.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    /// Where keys go.
    pub(super) const fn focus(&self) -> Focus {
        self.focus
    }

    /// What is shown, once there is something.
    pub(super) const fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether what is shown stands still.
    pub(super) const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Why the agent has said nothing the last time.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether somebody wants to leave.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    const fn list(&self) -> &List {
        &self.lists[self.tab as usize]
    }

    const fn list_mut(&mut self) -> &mut List {
        &mut self.lists[self.tab as usize]
    }
}

#[cfg(test)]
pub(super) mod tests;
