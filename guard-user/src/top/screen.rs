//! The live screen, drawn from its state alone.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, RenderDirection, Sparkline, Wrap},
};

use super::{
    state::{Focus, State},
    tab::{Cell, Column, Row, Tab, duration, widths},
};
use crate::{print::harmless, view::View};

/// Columns and lines below which nothing sensible can be shown.
const MIN_SIZE: (u16, u16) = (40, 10);
/// Lines above the list: the head, the tabs, the headings.
const HEAD: u16 = 5;
/// Lines that a message about the agent can take.
const MAX_BANNER: u16 = 3;
/// Columns that the last column of a list should have before any other is left out.
const NAME_WIDTH: usize = 16;

const HELP: [&str; 12] = [
    "1-5 Tab arrows  choose a list",
    "s S < >         sort by another column",
    "r               reverse the order",
    "/               filter; Esc clears it",
    "p space         pause and go on",
    "Up Down PgUp .. scroll",
    "? h             this help",
    "q Ctrl-C        quit",
    "",
    "QUERIES/S and SHARE: last 10 s or so,",
    "from samples. +-: can be off by that.",
    "LEFT: until a query may test the loop.",
];

/// The styles in use: with colours, or without where `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    good: Style,
    warn: Style,
    bad: Style,
    accent: Style,
}

impl Theme {
    /// Colours are those of the terminal's own palette.
    pub(super) const fn new(is_coloured: bool) -> Self {
        if is_coloured {
            Self {
                good: Style::new().fg(Color::Green),
                warn: Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
                bad: Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
                accent: Style::new().fg(Color::Cyan),
            }
        } else {
            Self {
                good: Style::new(),
                warn: Style::new().add_modifier(Modifier::BOLD),
                bad: Style::new().add_modifier(Modifier::BOLD.union(Modifier::REVERSED)),
                accent: Style::new(),
            }
        }
    }
}

/// Rows of a list that there is room for.
pub(super) fn room(area: Rect, state: &State) -> usize {
    area.height.saturating_sub(HEAD + 1 + banner_height(area, state)).into()
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    if area.width < MIN_SIZE.0 || area.height < MIN_SIZE.1 {
        let (width, height) = MIN_SIZE;
        let text = format!(
            "{}x{} is too small: {width}x{height} is needed",
            area.width, area.height
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, tabs, list, banner, foot] = Layout::vertical([
        Constraint::Length(HEAD - 2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(banner_height(area, state)),
        Constraint::Length(1),
    ])
    .areas(area);
    if let Some(view) = state.view() {
        draw_head(frame, head, view, state, theme);
        draw_tabs(frame, tabs, view, state, theme);
        draw_list(frame, list, state, theme);
    }
    if let Some(trouble) = state.trouble() {
        // What is shown is old.
        let old = head.union(tabs).union(list);
        frame.buffer_mut().set_style(old, Style::new().dim());
        let text = Paragraph::new(lost(trouble)).style(theme.bad).wrap(Wrap { trim: true });
        frame.render_widget(text, banner);
    }
    draw_foot(frame, foot, state, theme);
    if state.focus() == Focus::Help {
        draw_help(frame, area);
    }
}

fn lost(trouble: &str) -> String {
    format!("AGENT LOST, trying again: {}", harmless(trouble))
}

fn banner_height(area: Rect, state: &State) -> u16 {
    let Some(trouble) = state.trouble() else { return 0 };
    // Words wrap: a line may be left with room at its end.
    let lines = lost(trouble).len() / usize::from(area.width.saturating_sub(8).max(1)) + 1;
    (lines as u16).min(MAX_BANNER)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, view: &View, state: &State, theme: Theme) {
    let [title, queries, counts] = Layout::vertical([Constraint::Length(1); 3]).areas(area);
    let mode = if view.mode == "enforce" { theme.good } else { theme.warn };
    let mut left = vec![
        Span::from("dnsguard ").bold(),
        Span::styled(harmless(&view.mode).to_uppercase(), mode.bold()),
    ];
    let clock = clock(view.at_unix_ms);
    let right = if state.is_paused() {
        Span::styled(format!("PAUSED {clock}"), theme.warn.reversed())
    } else {
        Span::from(clock)
    };
    let interfaces = harmless(&view.interfaces.join(", ")).into_owned();
    let room = usize::from(title.width).saturating_sub(width(&left) + 2 + right.width());
    let on = shortened(&format!(" on {interfaces}"), room);
    left.push(on.into());
    let up = format!(", up {}", duration(view.uptime_seconds as u64));
    if width(&left) + up.len() + 2 + right.width() <= title.width.into() {
        left.push(up.into());
    }
    frame.render_widget(Line::from(left), title);
    frame.render_widget(Line::from(right).right_aligned(), title);

    let last = &view.last_second;
    let label = format!("{:>8.0} queries/s ", last.queries);
    let [text, plot] = Layout::horizontal([Constraint::Length(label.len() as u16), Constraint::Min(0)]).areas(queries);
    frame.render_widget(Line::from(label).bold(), text);
    let points = view.history.queries_per_second.iter().rev();
    let points: Vec<u64> = points.take(plot.width.into()).map(|rate| rate.round() as u64).collect();
    let line = Sparkline::default()
        .data(points)
        .direction(RenderDirection::RightToLeft);
    frame.render_widget(line.style(theme.accent), plot);

    let alarm = |is_bad: bool| if is_bad { theme.bad } else { Style::new() };
    let loops = view.loops.len();
    let would = if view.mode == "enforce" { "" } else { "would " };
    let parts = [
        (format!("{:>8.0} held/s", last.held), alarm(last.held > 0.0)),
        (format!("{:.0} shed/s", last.shed), alarm(last.shed > 0.0)),
        (format!("loops {loops}"), alarm(loops > 0)),
        (format!("pass {:.0}/s", last.pass), Style::new()),
        (
            format!("{would}answer {:.0}/s", last.answer + last.would_answer),
            Style::new(),
        ),
        (
            format!("{would}drop {:.0}/s", last.drop + last.would_drop),
            Style::new(),
        ),
    ];
    frame.render_widget(as_many_as_fit(parts, counts.width), counts);
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, view: &View, state: &State, theme: Theme) {
    let is_narrow = area.width < 60;
    let mut spans = Vec::new();
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        let title = match tab {
            Tab::Loops if !view.loops.is_empty() => format!("{} {} ({})", index + 1, tab.title(), view.loops.len()),
            _ if is_narrow && tab != state.tab() => format!("{} {}", index + 1, &tab.title()[..3]),
            _ => format!("{} {}", index + 1, tab.title()),
        };
        let style = if tab == state.tab() {
            Style::new().reversed().bold()
        } else if tab == Tab::Loops && !view.loops.is_empty() {
            theme.bad
        } else {
            Style::new()
        };
        spans.push(Span::styled(title, style));
        spans.push(Span::from(if is_narrow { " " } else { "  " }));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let rows = state.rows();
    let columns = state.tab().columns();
    let mut widths = widths(columns, &rows);
    widths[state.order()] = widths[state.order()].max(columns[state.order()].title.len() + 1);
    let shown = shown(columns, &widths, area.width.into());
    let before: usize = shown.iter().rev().skip(1).map(|index| widths[*index] + 2).sum();
    if let Some(last) = widths.last_mut() {
        *last = usize::from(area.width).saturating_sub(before);
    }
    let heading = shown.iter().map(|&index| {
        let arrow = match (index == state.order(), state.is_descending()) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        let text = format!("{}{arrow}", columns[index].title);
        Span::styled(
            aligned(&text, widths[index], columns[index].is_number),
            Style::new().bold().underlined(),
        )
    });
    let mut lines = vec![Line::from(heading.collect::<Vec<_>>())];
    for row in rows.iter().skip(state.offset()).take(state.room()) {
        let cells = shown.iter().map(|&index| {
            let text = shortened(&row[index].text, widths[index]);
            let style = style_of(state.tab(), columns[index], row, theme);
            Span::styled(aligned(&text, widths[index], columns[index].is_number), style)
        });
        lines.push(Line::from(cells.collect::<Vec<_>>()));
    }
    if rows.is_empty() {
        let text = match state.filter() {
            "" => state.tab().nothing().to_owned(),
            filter => format!("none contains {filter}"),
        };
        lines.push(Line::from(text).italic());
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The columns that there is room for, by their place.
fn shown(columns: &[Column], widths: &[usize], room: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    loop {
        let name = widths.last().map_or(0, |width| *width.min(&NAME_WIDTH));
        let others = shown.iter().rev().skip(1).map(|index| widths[*index] + 2);
        let first_to_go = shown.iter().copied().max_by_key(|index| columns[*index].rank);
        match first_to_go.filter(|index| columns[*index].rank > 0) {
            Some(index) if others.sum::<usize>() + name > room => shown.retain(|kept| *kept != index),
            _ => return shown,
        }
    }
}

fn style_of(tab: Tab, column: Column, row: &Row, theme: Theme) -> Style {
    let is = |title: &str, wanted: fn(&Cell) -> bool| {
        let cells = tab.columns().iter().zip(row);
        cells
            .into_iter()
            .any(|(column, cell)| column.title == title && wanted(cell))
    };
    match (tab, column.title) {
        (Tab::Loops, "NAME" | "PROOF") if is("PROOF", |cell| cell.text == "proven") => theme.bad,
        (Tab::Loops, "NAME" | "PROOF") => theme.warn,
        (Tab::Budgets, "OVER/S") if is("OVER/S", |cell| cell.text != "0") => theme.bad,
        _ => Style::new(),
    }
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let rows = state.rows().len();
    if state.focus() == Focus::Filter {
        let text = format!("/{}", state.filter());
        let end = area.x + (text.len() as u16).min(area.width.saturating_sub(1));
        frame.render_widget(Line::from(text).style(theme.warn), area);
        frame.set_cursor_position((end, area.y));
        return;
    }
    let mut parts = Vec::new();
    if !state.filter().is_empty() {
        parts.push((format!("filter: {}", shortened(state.filter(), 20)), theme.warn));
    }
    if rows > state.room() {
        let last = (state.offset() + state.room()).min(rows);
        parts.push((format!("{}-{last} of {rows}", state.offset() + 1), Style::new()));
    }
    let keys = [
        "q quit",
        "? help",
        "/ filter",
        "p pause",
        "s sort",
        "r reverse",
        "Tab next list",
    ];
    parts.extend(keys.map(|key| (key.to_owned(), Style::new().dim())));
    frame.render_widget(as_many_as_fit(parts, area.width), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.map(Line::from);
    let width = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 2;
    let height = (lines.len() as u16 + 2).min(area.height);
    let [row] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [help] = Layout::horizontal([Constraint::Length(width.min(area.width))])
        .flex(ratatui::layout::Flex::Center)
        .areas(row);
    frame.render_widget(Clear, help);
    frame.render_widget(
        Paragraph::new(lines.to_vec()).block(Block::bordered().title(" Keys ")),
        help,
    );
}

/// The first of these parts, two blanks apart.
fn as_many_as_fit(parts: impl IntoIterator<Item = (String, Style)>, room: u16) -> Line<'static> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    for (text, style) in parts {
        let gap = if spans.is_empty() { 0 } else { 2 };
        if width(&spans) + gap + text.len() > room.into() {
            break;
        }
        spans.push(Span::from(&"  "[..gap]));
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

fn width(spans: &[Span<'_>]) -> usize {
    spans.iter().map(Span::width).sum()
}

/// A text of ASCII letters, cut where there is no more room.
fn shortened(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    match text.get(..room.saturating_sub(1)) {
        Some(start) if room > 0 => format!("{start}…"),
        _ => String::new(),
    }
}

/// A text in its column, with the two blanks behind it.
fn aligned(text: &str, width: usize, is_number: bool) -> String {
    if is_number {
        format!("{text:>width$}  ")
    } else {
        format!("{text:<width$}  ")
    }
}

/// The time of day, in UTC.
fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000 % 86_400;
    format!(
        "{:02}:{:02}:{:02} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests;
