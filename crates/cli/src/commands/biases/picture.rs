//! The heat map: layers from left to right, modules from top to bottom.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::Grid;

/// Height of the letters of the heading, of names and of numbers, in pixels.
const HEADING: f64 = 20.0;
const NAME: f64 = 13.0;
const NUMBER: f64 = 12.0;
/// Width of a letter of a module's name, rather more than less.
const LETTER: i32 = 8;
/// Space for the headings, above the cells.
const TOP: i32 = 84;
/// Space for the colour scale, to the right of the cells.
const RIGHT: i32 = 140;
/// Space for the layers' numbers, below the cells.
const BOTTOM: i32 = 56;
/// Height of a cell.
const CELL_HEIGHT: i32 = 28;
/// Widths that a cell may have, and that all cells together have where these allow it.
const CELL_WIDTHS: (i32, i32, i32) = (14, 60, 760);

/// Colours of the scale, evenly spaced, from no movement to the most.
const SCALE: [RGBColor; 5] = [
    RGBColor(255, 250, 235),
    RGBColor(254, 217, 142),
    RGBColor(251, 137, 51),
    RGBColor(197, 60, 20),
    RGBColor(92, 22, 14),
];
const MISSING: RGBColor = RGBColor(222, 222, 226);
const TEXT: RGBColor = RGBColor(40, 40, 46);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The picture as the text of an SVG file. `base` is the name of the base model.
pub(super) fn draw(grid: &Grid, base: Option<&str>) -> Result<String> {
    let mut svg = String::new();
    let layers = grid.layers.max(1) as i32;
    let (narrow, wide, all) = CELL_WIDTHS;
    let longest = grid.kinds.iter().map(|kind| kind.name().len()).max();
    let picture = Picture {
        grid,
        left: 30 + LETTER * longest.unwrap_or(0) as i32,
        cell_width: (all / layers).clamp(narrow, wide),
        columns: layers,
        rows: grid.kinds.len().max(1) as i32,
        scale: Scale::up_to(grid.cells.values().copied().fold(0.0, f64::max)),
    };
    {
        let area = SVGBackend::with_string(&mut svg, picture.size()).into_drawing_area();
        picture
            .draw(&area, base)
            .and_then(|()| area.present())
            // Its errors hold no `Sync` value, and a string cannot fail to be written to.
            .map_err(|error| anyhow!("the picture could not be drawn: {error}"))?;
    }
    Ok(svg)
}

struct Picture<'a> {
    grid: &'a Grid,
    /// Where the cells begin, to the right of the modules' names.
    left: i32,
    cell_width: i32,
    columns: i32,
    rows: i32,
    scale: Scale,
}

impl Picture<'_> {
    fn size(&self) -> (u32, u32) {
        // Room for the headings where there are few layers.
        let width = (self.right() + RIGHT).max(560);
        (width as u32, (self.bottom() + BOTTOM) as u32)
    }

    fn right(&self) -> i32 {
        self.left + self.columns * self.cell_width
    }

    /// The lower edge of the cells, and of the colour scale, which has a least height.
    fn bottom(&self) -> i32 {
        TOP + (self.rows * CELL_HEIGHT).max(4 * CELL_HEIGHT)
    }

    fn draw(&self, area: &Area<'_>, base: Option<&str>) -> Drawn {
        area.fill(&WHITE)?;
        text(
            area,
            "How far each bias moved",
            (20, 26),
            HEADING,
            HPos::Left,
        )?;
        let mut caption = String::from("BitFit");
        if let Some(base) = base {
            caption += &format!(" on {}", shortened(base, 48));
        }
        caption += ": mean absolute change";
        text(area, &caption, (20, 52), NAME, HPos::Left)?;
        self.draw_cells(area)?;
        self.draw_axes(area)?;
        self.draw_scale(area)
    }

    fn draw_cells(&self, area: &Area<'_>) -> Drawn {
        for (row, kind) in self.grid.kinds.iter().enumerate() {
            for layer in 0..self.grid.layers {
                let corner = (
                    self.left + layer as i32 * self.cell_width,
                    TOP + row as i32 * CELL_HEIGHT,
                );
                let color = match self.grid.cell(layer, *kind) {
                    Some(value) => self.scale.color(value),
                    None => MISSING,
                };
                // A gap of one pixel keeps pale neighbours apart.
                let opposite = (corner.0 + self.cell_width - 1, corner.1 + CELL_HEIGHT - 1);
                area.draw(&Rectangle::new([corner, opposite], color.filled()))?;
            }
        }
        Ok(())
    }

    fn draw_axes(&self, area: &Area<'_>) -> Drawn {
        for (row, kind) in self.grid.kinds.iter().enumerate() {
            let middle = TOP + row as i32 * CELL_HEIGHT + CELL_HEIGHT / 2;
            text(
                area,
                kind.name(),
                (self.left - 10, middle),
                NAME,
                HPos::Right,
            )?;
        }
        let bottom = TOP + self.rows * CELL_HEIGHT;
        // Every layer's number where there is room for it, else every fifth.
        let step = if self.cell_width >= 20 { 1 } else { 5 };
        for layer in (0..self.grid.layers).step_by(step) {
            let middle = self.left + layer as i32 * self.cell_width + self.cell_width / 2;
            text(
                area,
                &layer.to_string(),
                (middle, bottom + 13),
                NUMBER,
                HPos::Center,
            )?;
        }
        let middle = (self.left + self.right()) / 2;
        text(area, "layer", (middle, bottom + 36), NAME, HPos::Center)
    }

    fn draw_scale(&self, area: &Area<'_>) -> Drawn {
        let left = self.right() + 28;
        let height = self.bottom() - TOP - 1;
        for row in 0..=height {
            let share = f64::from(height - row) / f64::from(height);
            let corners = [(left, TOP + row), (left + 16, TOP + row + 1)];
            area.draw(&Rectangle::new(corners, color_at(share).filled()))?;
        }
        for tick in &self.scale.ticks {
            let y = TOP + height - (f64::from(height) * tick / self.scale.top) as i32;
            let line = vec![(left + 16, y), (left + 20, y)];
            area.draw(&PathElement::new(line, TEXT))?;
            text(area, &number(*tick), (left + 24, y), NUMBER, HPos::Left)?;
        }
        let grid = self.grid;
        if grid.cells.len() < grid.layers * grid.kinds.len() {
            let y = self.bottom() + 28;
            let corners = [(left, y), (left + 16, y + 14)];
            area.draw(&Rectangle::new(corners, MISSING.filled()))?;
            text(area, "not trained", (left + 24, y + 7), NUMBER, HPos::Left)?;
        }
        Ok(())
    }
}

type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

/// Writes at the height of `at`, and from it to the left or to the right.
fn text(area: &Area<'_>, text: &str, at: (i32, i32), pixels: f64, side: HPos) -> Drawn {
    // Its SVG backend makes letters smaller by this factor.
    let size = pixels * 1.24;
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&TEXT)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

/// The numbers that colours stand for.
struct Scale {
    /// What the last colour stands for; above zero.
    top: f64,
    /// Round numbers from zero to the top.
    ticks: Vec<f64>,
}

impl Scale {
    /// From zero to `most`. Where nothing moved, and where a value is not finite, there is nothing
    /// to tell apart.
    fn up_to(most: f64) -> Self {
        if !(most.is_finite() && most > 0.0) {
            return Self {
                top: 1.0,
                ticks: vec![0.0],
            };
        }
        let rough = most / 5.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|factor| factor * unit)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let count = (most / step).floor() as usize;
        Self {
            top: most,
            ticks: (0..=count).map(|tick| tick as f64 * step).collect(),
        }
    }

    fn color(&self, value: f64) -> RGBColor {
        color_at(value / self.top)
    }
}

/// The colour at a share of the scale, from 0 to 1.
fn color_at(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let below = (place as usize).min(SCALE.len() - 2);
    let (from, to) = (SCALE[below], SCALE[below + 1]);
    let part = place - below as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// A tick's number, short.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if (0.001..1000.0).contains(&value) {
        // Three digits that count; a tick has at most one or two.
        let digits = (2 - value.log10().floor() as i32).max(0) as usize;
        let text = format!("{value:.digits$}");
        if !text.contains('.') {
            return text;
        }
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    // Ticks are multiples of a power of ten by small whole numbers.
    let text = format!("{value:.1e}");
    text.replace(".0e", "e")
}

/// The end of a name that is too long: of a path, the telling part.
fn shortened(name: &str, longest: usize) -> String {
    let length = name.chars().count();
    if length <= longest {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - longest).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use burn_peft::LayerModule;

    use super::*;

    fn grid(layers: usize, kinds: &[LayerModule], value: impl Fn(usize) -> f64) -> Grid {
        Grid {
            layers,
            kinds: kinds.to_vec(),
            cells: (0..layers)
                .flat_map(|layer| kinds.iter().map(move |kind| (layer, *kind)))
                .map(|cell| (cell, value(cell.0)))
                .collect(),
        }
    }

    #[test]
    fn every_cell_is_drawn_in_the_colour_of_its_value() {
        let svg = draw(&grid(28, &LayerModule::ALL, |layer| layer as f64), None).unwrap();
        for kind in LayerModule::ALL {
            assert!(svg.contains(kind.name()), "{kind}");
        }
        // The largest: nine cells of the last layer, and the upper end of the scale.
        let RGBColor(r, g, b) = SCALE[4];
        let most = format!("#{r:02X}{g:02X}{b:02X}");
        assert!(svg.matches(&most).count() >= 9, "{svg}");
        assert!(!svg.contains("not trained"));
        assert!(svg.contains("27"));
    }

    #[test]
    fn a_layer_without_the_bias_is_marked() {
        let mut some = grid(4, &[LayerModule::QProj], |_| 0.5);
        some.cells.remove(&(1, LayerModule::QProj));
        assert!(draw(&some, Some("a/b")).unwrap().contains("not trained"));
    }

    #[test]
    fn a_name_cannot_break_the_picture() {
        let svg = draw(&grid(1, &[LayerModule::QProj], |_| 0.0), Some("<a & b>")).unwrap();
        assert!(svg.contains("&lt;a &amp; b&gt;"), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_within_the_scale() {
        for (most, expected) in [
            (0.0, vec!["0"]),
            (f64::NAN, vec!["0"]),
            (0.00083, vec!["0", "2e-4", "4e-4", "6e-4", "8e-4"]),
            (0.0123, vec!["0", "0.005", "0.01"]),
            (1.0, vec!["0", "0.2", "0.4", "0.6", "0.8", "1"]),
            (4.1, vec!["0", "1", "2", "3", "4"]),
            (370.0, vec!["0", "100", "200", "300"]),
        ] {
            let ticks: Vec<_> = Scale::up_to(most)
                .ticks
                .iter()
                .map(|t| number(*t))
                .collect();
            assert_eq!(ticks, expected, "{most}");
        }
    }

    #[test]
    fn colours_run_from_one_end_of_the_scale_to_the_other() {
        assert_eq!(color_at(0.0), SCALE[0]);
        assert_eq!(color_at(0.5), SCALE[2]);
        assert_eq!(color_at(1.0), SCALE[4]);
        assert_eq!(color_at(7.0), SCALE[4]);
    }
}
