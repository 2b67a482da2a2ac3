//! The page for people: PDF/A-2b with its fonts in it. Lines are broken here; nothing is shaped, so that the scripts it can
//! show are those of the vendored fonts (Latin, Greek, Cyrillic).

use super::BundleError;
use krilla::Document;
use krilla::SerializeSettings;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::geom::Point;
use krilla::metadata::{DateTime, Metadata};
use krilla::page::PageSettings;
use krilla::surface::Surface;
use krilla::text::{Font, GlyphId, KrillaGlyph};
use skrifa::instance::{LocationRef, Size};
use skrifa::{FontRef, MetadataProvider};

static REGULAR: &[u8] = include_bytes!("fonts/DejaVuSans-subset.ttf");
static BOLD: &[u8] = include_bytes!("fonts/DejaVuSans-Bold-subset.ttf");

/// A4 in points, and its margins.
const WIDTH: f32 = 595.28;
const HEIGHT: f32 = 841.89;
const MARGIN: f32 = 56.0;
/// Where the text of a fact begins.
const COLUMN: f32 = 112.0;
const LEADING: f32 = 1.42;

/// A piece of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// The title.
    Title(String),
    /// A heading; it stays with what follows.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// A name and what it stands for.
    Fact(&'static str, String),
}

/// What the document says of itself.
pub(super) struct About {
    pub title: String,
    pub agency: String,
    pub tool: String,
    pub at_ms: u64,
}

struct Face {
    font: Font,
    face: FontRef<'static>,
}

impl Face {
    fn of(bytes: &'static [u8]) -> Result<Self, BundleError> {
        let bad = || BundleError::Page("the font does not parse".into());
        let font = Font::new(bytes.into(), 0).ok_or_else(bad)?;
        Ok(Self { font, face: FontRef::new(bytes).map_err(|_| bad())? })
    }

    /// The same text in characters that the font has.
    fn shown(&self, text: &str) -> String {
        let map = self.face.charmap();
        text.chars().map(|c| if map.map(c).is_some_and(|g| g.to_u32() != 0) { c } else { '?' }).collect()
    }

    /// Glyphs with advances of one em.
    fn glyphs(&self, text: &str) -> Vec<KrillaGlyph> {
        let (map, metrics) = (self.face.charmap(), self.face.glyph_metrics(Size::new(1.0), LocationRef::default()));
        let glyph = |(at, c): (usize, char)| {
            let id = map.map(c).unwrap_or_default();
            let advance = metrics.advance_width(id).unwrap_or(0.5);
            KrillaGlyph::new(GlyphId::new(id.to_u32()), advance, 0.0, 0.0, 0.0, at..at + c.len_utf8(), None)
        };
        text.char_indices().map(glyph).collect()
    }

    fn width(&self, text: &str, size: f32) -> f32 {
        self.glyphs(text).iter().map(|g| g.x_advance * size).sum()
    }

    /// Breaks a text at spaces, and what is longer than a line anywhere.
    fn lines(&self, text: &str, size: f32, width: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in self.shown(text).split_whitespace() {
            let joined = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if self.width(&joined, size) <= width {
                line = joined;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for c in word.chars() {
                line.push(c);
                if self.width(&line, size) > width && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, c.to_string()));
                }
            }
        }
        if !line.is_empty() || lines.is_empty() {
            lines.push(line);
        }
        lines
    }
}

/// A line at its place in the block: bold or not, size, from the left margin, and room above it.
struct Line {
    text: String,
    bold: bool,
    size: f32,
    x: f32,
    above: f32,
    /// Stands beside the line before it.
    beside: bool,
    /// Stays with the next line.
    keep: bool,
}

struct Faces {
    regular: Face,
    bold: Face,
}

impl Faces {
    fn break_up(&self, block: &Block) -> Vec<Line> {
        let full = WIDTH - 2.0 * MARGIN;
        let one = |face: &Face, bold, text: &str, size, x, above: f32, keep| -> Vec<Line> {
            let lines = face.lines(text, size, full - x).into_iter().enumerate();
            let above = move |i| if i == 0 { above } else { 0.0 };
            lines.map(|(i, text)| Line { text, bold, size, x, above: above(i), beside: false, keep }).collect()
        };
        match block {
            Block::Title(text) => one(&self.bold, true, text, 17.0, 0.0, 0.0, true),
            Block::Heading(text) => one(&self.bold, true, text, 11.5, 0.0, 12.0, true),
            Block::Text(text) => one(&self.regular, false, text, 9.5, 0.0, 4.0, false),
            Block::Fact(name, text) => {
                let mut lines = one(&self.bold, true, name, 9.0, 0.0, 2.5, false);
                let mut values = one(&self.regular, false, text, 9.5, COLUMN, 0.0, false);
                if let (Some(first), [_]) = (values.first_mut(), lines.as_slice()) {
                    first.beside = true;
                }
                lines.append(&mut values);
                lines
            }
        }
    }

    fn draw(&self, surface: &mut Surface<'_>, line: &Line, y: f32) {
        let face = if line.bold { &self.bold } else { &self.regular };
        let start = Point::from_xy(MARGIN + line.x, y);
        surface.draw_glyphs(start, &face.glyphs(&line.text), face.font.clone(), &line.text, line.size, false);
    }
}

/// Lines with their baselines, page by page.
fn paginate(lines: Vec<Line>) -> Vec<Vec<(Line, f32)>> {
    let bottom = HEIGHT - MARGIN - 24.0;
    let (mut pages, mut page, mut y) = (Vec::new(), Vec::new(), MARGIN);
    for line in lines {
        let step = if line.beside { 0.0 } else { line.above + line.size * LEADING };
        // A heading that would stand alone at the end begins the next page.
        let room = if line.keep { 4.0 * line.size * LEADING } else { 0.0 };
        if y + step + room > bottom && !page.is_empty() && !line.beside {
            pages.push(std::mem::take(&mut page));
            y = MARGIN;
        }
        y += step;
        page.push((line, y));
    }
    pages.push(page);
    pages
}

fn date(ms: u64) -> DateTime {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(0)).unwrap_or_default();
    let time = time.to_zoned(jiff::tz::TimeZone::UTC);
    let small = |n: i8| u8::try_from(n).unwrap_or(0);
    DateTime::new(u16::try_from(time.year()).unwrap_or(0))
        .month(small(time.month()))
        .day(small(time.day()))
        .hour(small(time.hour()))
        .minute(small(time.minute()))
        .second(small(time.second()))
        .utc_offset_hour(0)
        .utc_offset_minute(0)
}

/// The document.
///
/// # Errors
/// What makes it no PDF/A-2b.
pub(super) fn render(blocks: &[Block], about: &About) -> Result<Vec<u8>, BundleError> {
    let broken = |e: String| BundleError::Page(e);
    let configuration = ConfigurationBuilder::new().with_archival_validator(Archival::A2_B).finish();
    let configuration = configuration.map_err(|e| broken(format!("{e:?}")))?;
    let settings = SerializeSettings { configuration, ..SerializeSettings::default() };
    let mut document = Document::new_with(settings);
    let faces = Faces { regular: Face::of(REGULAR)?, bold: Face::of(BOLD)? };
    let pages = paginate(blocks.iter().flat_map(|b| faces.break_up(b)).collect());
    let count = pages.len();
    for (i, page) in pages.into_iter().enumerate() {
        let size = PageSettings::from_wh(WIDTH, HEIGHT).ok_or_else(|| broken("a page has no size".into()))?;
        let mut sheet = document.start_page_with(size);
        let mut surface = sheet.surface();
        for (line, y) in &page {
            faces.draw(&mut surface, line, *y);
        }
        let text = faces.regular.shown(&format!("{}    page {} of {count}", about.title, i + 1));
        let foot = Line { text, bold: false, size: 7.5, x: 0.0, above: 0.0, beside: false, keep: false };
        faces.draw(&mut surface, &foot, HEIGHT - MARGIN + 4.0);
        surface.finish();
        sheet.finish();
    }
    let metadata = Metadata::new()
        .title(about.title.clone())
        .authors(vec![about.agency.clone()])
        .creator(about.tool.clone())
        .language("en".into())
        .creation_date(date(about.at_ms));
    document.set_metadata(metadata);
    document.finish().map_err(|e| broken(format!("{e:?}")))
}
