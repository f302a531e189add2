//! What the demo prints: headings, lines and tables, none wider than 100 columns.

use std::{
    io::{IsTerminal as _, stdout},
    sync::LazyLock,
    time::Duration,
};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, LineStyle, Table, TableStyle};

static COLOUR: LazyLock<bool> =
    LazyLock::new(|| stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());

const WIDTH: u16 = 96;

/// A line under the header, and nothing else between the reader and the text.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

fn paint(code: &str, text: &str) -> String {
    if *COLOUR { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Opens a step of the story.
pub(crate) fn heading(number: usize, title: &str) {
    let rule = "─".repeat(usize::from(WIDTH).saturating_sub(title.chars().count() + 6));
    println!("\n{} {}", paint("1;36", &format!("{number:>2}  {title}")), paint("2", &rule));
}

/// A line of the story.
pub(crate) fn say(text: &str) {
    println!("    {text}");
}

/// What the cluster does, as somebody would type it.
pub(crate) fn typed(text: &str) {
    println!();
    command(text);
}

/// Something to type.
pub(crate) fn command(text: &str) {
    println!("    {} {}", paint("2", "$"), paint("1", text));
}

/// Something went as it should.
pub(crate) fn good(text: &str) {
    println!("    {} {text}", paint("32", "✓"));
}

/// Something did not.
pub(crate) fn bad(text: &str) {
    println!("    {} {}", paint("1;31", "✗"), paint("31", text));
}

/// Rows under a header; columns whose header starts with `#` are numbers.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(STYLE).set_width(WIDTH);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !*COLOUR {
        table.force_no_tty();
    }
    let title =
        |name: &&str| Cell::new(name.trim_start_matches('#')).add_attribute(Attribute::Bold);
    table.set_header(header.iter().map(title));
    for row in rows {
        table.add_row(row.into_iter().map(cell));
    }
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index)
            && name.starts_with('#')
        {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    for line in table.lines() {
        println!("   {}", line.trim_end());
    }
}

/// A word of bad news stands out.
fn cell(text: String) -> Cell {
    let alarming = matches!(text.as_str(), "False" | "terminating" | "FAILED");
    let cell = Cell::new(text);
    if alarming { cell.fg(Color::Yellow) } else { cell }
}

/// Milliseconds with one digit behind the point.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
