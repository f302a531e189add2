//! What all commands have in common on their way out: formats, tables, colour.

use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};
use serde::Serialize;

use super::{Exit, Failure};
use crate::api::Level;

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line each, at most 100 columns wide
    #[default]
    Table,
    /// All columns, as wide as they are
    Wide,
    Json,
    Yaml,
    /// Names only
    Name,
}

/// The `-o` of every command.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct FormatArg {
    /// How to write the result
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    pub output: Format,
}

/// What every document starts with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: T,
}

impl<T> Document<T> {
    pub fn new(kind: &'static str, body: T) -> Self {
        Self { api_version: "lb/v1", kind, body }
    }
}

/// The body of a document that lists things.
#[derive(Serialize)]
pub struct Items<'a, T> {
    pub items: &'a [T],
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// Numbers stand to the right.
    pub number: bool,
    /// Only shown with `-o wide`.
    pub wide: bool,
    /// Others give way to so much of it, where a table is too wide.
    pub least: u16,
    /// Sentences: where a table is too wide they go on in the next line, and nothing of it is cut.
    pub prose: bool,
}

impl Column {
    pub const fn text(title: &'static str) -> Self {
        Self { title, number: false, wide: false, least: 0, prose: false }
    }

    pub const fn number(title: &'static str) -> Self {
        Self { number: true, ..Self::text(title) }
    }

    pub const fn prose(title: &'static str) -> Self {
        Self { prose: true, ..Self::text(title) }
    }

    /// The same column, that keeps so many letters where a table is too wide.
    pub const fn at_least(self, least: u16) -> Self {
        Self { least, ..self }
    }

    /// The same column, for addresses with ports: all of IPv4, and of IPv6 what is usual inside a
    /// cluster.
    pub const fn address(self) -> Self {
        self.at_least(26)
    }

    /// The same column, with `-o wide` only.
    pub const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// Something that every format can show.
pub trait Show {
    /// The document, as JSON and YAML have it.
    fn document(&self) -> impl Serialize;
    fn columns(&self) -> &'static [Column];
    /// A cell for each column.
    fn rows(&self) -> Vec<Vec<String>>;
    /// What `-o name` prints, one a line.
    fn names(&self) -> Vec<String>;
    /// What stands in the place of a table without rows.
    fn nothing(&self) -> &'static str;
}

/// Writes a result to standard output.
pub fn show(what: &impl Show, format: Format) -> Result<Shown, Failure> {
    write(&render(what, format)?)
}

/// A result as text that ends with a line's end.
pub fn render(what: &impl Show, format: Format) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table(what, false)),
        Format::Wide => Ok(table(what, true)),
        Format::Name => Ok(what.names().into_iter().map(|name| name + "\n").collect()),
        Format::Json | Format::Yaml => structured(&what.document(), format),
    }
}

/// A document in JSON, or in YAML if that is the format.
pub fn structured(document: &impl Serialize, format: Format) -> Result<String, Failure> {
    let unwritable = |error: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Error,
            format_args!("the result cannot be written: {error}"),
            "report this",
        )
    };
    match format {
        Format::Yaml => serde_saphyr::to_string(document).map_err(|error| unwritable(&error)),
        _ => serde_json::to_string_pretty(document)
            .map(|text| text + "\n")
            .map_err(|error| unwritable(&error)),
    }
}

/// Whether anybody reads what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Read,
    Unread,
}

/// Writes text to standard output. A reader that has seen enough is no error.
pub fn write(text: &str) -> Result<Shown, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Shown::Read),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Shown::Unread),
        Err(error) => {
            let what = format_args!("standard output: {error}");
            Err(Failure::new(Exit::Error, what, "write to where there is room"))
        }
    }
}

/// Empties the screen, if there is one.
pub fn clear() -> Result<Shown, Failure> {
    if io::stdout().is_terminal() { write("\x1b[H\x1b[2J") } else { Ok(Shown::Read) }
}

/// `Ok`, `Warn` or `Fail`, in colour where `colour` allows it.
pub fn level(level: Level, colour: bool) -> String {
    let (word, code) = match level {
        Level::Ok => ("Ok", 32),
        Level::Warn => ("Warn", 33),
        Level::Fail => ("Fail", 31),
    };
    if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.into() }
}

/// Whether standard output shows colour: it is a terminal, and nobody said NO_COLOR.
pub fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn table(what: &impl Show, wide: bool) -> String {
    let rows = what.rows();
    if rows.is_empty() {
        return format!("{}\n", what.nothing());
    }
    let columns = what.columns();
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    lay_out(columns, Some(titles), rows, if wide { None } else { Some(WIDTH) })
}

/// How wide a table may be, in columns.
pub const WIDTH: u16 = 100;

/// Cells under each other, in lines that are no longer than `width`; without one, as long as they are
/// and with the columns that are only shown then.
pub fn lay_out(
    columns: &[Column],
    titles: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    width: Option<u16>,
) -> String {
    let prose = columns.iter().any(|column| column.prose);
    let longest = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    // A title is never cut, and half a number would be another one.
    let least = |at: usize, it: &Column| {
        let cells = if it.number { longest(at) } else { longest(at).min(it.least.into()) };
        cells.max(if titles.is_some() { it.title.len() } else { 0 })
    };
    let least: Vec<usize> = columns.iter().enumerate().map(|(at, it)| least(at, it)).collect();
    let shown = |at: usize| width.is_none() || !columns[at].wide;
    let pick = |cells: Vec<String>| {
        let cells = cells.into_iter().enumerate().filter(|(at, _)| shown(*at));
        let mut row = comfy_table::Row::from(cells.map(|(_, cell)| cell).collect::<Vec<_>>());
        if !prose {
            // Cut off rather than continued: a line is a thing.
            row.max_height(1);
        }
        row
    };
    let mut table = comfy_table::Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    if let Some(titles) = titles {
        table.set_header(pick(titles));
    }
    table.add_rows(rows.into_iter().map(pick));
    let visible = columns.iter().zip(least).enumerate().filter(|(at, _)| shown(*at));
    for (at, (_, (column, least))) in visible.enumerate() {
        if let Some(found) = table.column_mut(at) {
            found.set_padding((0, 2));
            if width.is_some() && least > 0 {
                let least = Width::Fixed(least as u16 + 2);
                found.set_constraint(ColumnConstraint::LowerBoundary(least));
            }
            if column.number {
                found.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
