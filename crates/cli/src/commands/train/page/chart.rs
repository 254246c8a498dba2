//! A curve of a run as SVG. The page's style sheet gives the colours their dark form, by the values that stand here.

use anyhow::{Result, anyhow};
use plotters::{coord::Shift, prelude::*};

/// Size in pixels. The page scales it; at this size letters can be read on a phone, too.
const SIZE: (u32, u32) = (460, 250);
const GRID: RGBColor = RGBColor(0xe3, 0xe6, 0xeb);
const TEXT: RGBColor = RGBColor(0x5b, 0x62, 0x70);
/// Points of a line. More are not told apart on a screen.
const MOST_POINTS: usize = 400;
/// A scale is logarithmic where the largest value is so many times the least.
const WIDE: f64 = 30.0;

/// Which line it is. Each has a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the training rows.
    Train,
    /// Of the validation rows, measured now and then.
    Eval,
}

impl Kind {
    fn color(self) -> RGBColor {
        match self {
            Self::Train => RGBColor(0x25, 0x63, 0xeb),
            Self::Eval => RGBColor(0xd9, 0x48, 0x0f),
        }
    }
}

/// A line: values by steps.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) points: Vec<(f64, f64)>,
}

/// How values stand on the vertical axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Logarithmic where the values lie far apart.
    Wide,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The curve as an `svg` element; `None` where there is nothing to draw. `level` is a value for all steps, drawn as a
/// broken line.
pub(super) fn draw(lines: &[Line], level: Option<f64>, scale: Scale) -> Result<Option<String>> {
    let mut lines: Vec<Line> = lines.iter().map(Line::drawable).collect();
    lines.retain(|line| !line.points.is_empty());
    let mut values: Vec<f64> = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(_, value)| *value))
        .collect();
    let level = level.filter(|level| level.is_finite());
    values.extend(level);
    if lines.is_empty() {
        return Ok(None);
    }
    let bounds = |values: &[f64]| {
        let start = (f64::INFINITY, f64::NEG_INFINITY);
        values.iter().fold(start, |(least, most), value| {
            (least.min(*value), most.max(*value))
        })
    };
    let (least, most) = bounds(&values);
    let logarithmic = scale == Scale::Wide && least > 0.0 && most / least > WIDE;
    let place = |value: f64| if logarithmic { value.log10() } else { value };
    let steps: Vec<f64> = lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(step, _)| *step))
        .collect();
    let last = bounds(&steps).1.max(1.0);
    let (bottom, top) = (place(least), place(most));
    // A value that does not change gets room on both sides.
    let room = match top - bottom {
        0.0 => bottom.abs().max(1e-9) * 0.1,
        height => height * 0.06,
    };
    // What is never below zero is not drawn as if it were.
    let floor = match !logarithmic && bottom >= 0.0 {
        true => (bottom - room).max(0.0),
        false => bottom - room,
    };
    let mut svg = String::new();
    {
        let area: Area<'_> = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = draw_on(
            &area,
            &lines,
            (last, floor..top + room),
            level.map(place),
            &place,
            logarithmic,
        );
        drawn
            .and_then(|()| area.present())
            .map_err(|error| anyhow!("a curve could not be drawn: {error}"))?;
    }
    // Inside of a page the name space is known.
    Ok(Some(svg.replacen(
        " xmlns=\"http://www.w3.org/2000/svg\"",
        "",
        1,
    )))
}

type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

fn draw_on(
    area: &Area<'_>,
    lines: &[Line],
    (last, height): (f64, std::ops::Range<f64>),
    level: Option<f64>,
    place: &dyn Fn(f64) -> f64,
    logarithmic: bool,
) -> Drawn {
    // plotters' SVG backend makes letters smaller by 1.24.
    let letters = ("sans-serif", 13.0 * 1.24).into_font().color(&TEXT);
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(14)
        .x_label_area_size(26)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, height)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(GRID)
        .label_style(letters)
        .x_labels(6)
        .y_labels(5)
        // Half a step is none.
        .x_label_formatter(&|step| match step.fract() {
            0.0 => format!("{step:.0}"),
            _ => String::new(),
        })
        .y_label_formatter(&|value| match logarithmic {
            true => number(two_digits(10_f64.powf(*value))),
            false => number(*value),
        })
        .draw()?;
    if let Some(level) = level {
        let (dash, gap) = (6, 5);
        let points = [(0.0, level), (last, level)];
        chart.draw_series(DashedLineSeries::new(points, dash, gap, TEXT.into()))?;
    }
    for line in lines {
        let color = line.kind.color();
        let points: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|(step, value)| (*step, place(*value)))
            .collect();
        if line.kind == Kind::Eval || points.len() == 1 {
            let dots = points.iter().map(|at| Circle::new(*at, 3, color.filled()));
            chart.draw_series(dots)?;
        }
        chart.draw_series([PathElement::new(points, color.stroke_width(2))])?;
    }
    Ok(())
}

impl Line {
    /// Whether it has values measured on the validation rows.
    pub(super) fn is_of_evaluations(&self) -> bool {
        self.kind == Kind::Eval && !self.points.is_empty()
    }

    /// Without what cannot be drawn, and with as many points as can be seen: each the mean of some neighbours.
    fn drawable(&self) -> Self {
        let finite = |(step, value): &&(f64, f64)| step.is_finite() && value.is_finite();
        let points: Vec<(f64, f64)> = self.points.iter().filter(finite).copied().collect();
        let each = points.len().div_ceil(MOST_POINTS).max(1);
        let mean = |some: &[(f64, f64)]| {
            let count = some.len() as f64;
            let sum = some.iter().fold((0.0, 0.0), |(x, y), point| {
                (x + point.0 / count, y + point.1 / count)
            });
            match some {
                [alone] => *alone,
                _ => sum,
            }
        };
        Self {
            kind: self.kind,
            points: points.chunks(each).map(mean).collect(),
        }
    }
}

/// A tick between two powers of ten is no round number.
fn two_digits(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

/// A number, short.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        // What rounding leaves of zero on an axis.
        0.0..1e-12 => "0".into(),
        1e-3..1e4 => {
            let digits = (2 - value.abs().log10().floor() as i32).max(0) as usize;
            let text = format!("{value:.digits$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
        _ => format!("{value:.1e}").replace(".0e", "e"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: Kind, values: &[f64]) -> Line {
        let points = values.iter().enumerate();
        Line {
            kind,
            points: points.map(|(step, value)| (step as f64, *value)).collect(),
        }
    }

    #[test]
    fn each_line_has_its_colour_and_the_base_a_broken_one() {
        let lines = [
            line(Kind::Train, &[3.0, 2.0, 1.5]),
            line(Kind::Eval, &[3.2, 2.2]),
        ];
        let svg = draw(&lines, Some(3.2), Scale::Linear).unwrap().unwrap();
        for color in ["#2563EB", "#D9480F"] {
            assert!(svg.contains(&format!("stroke=\"{color}\"")), "{svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        let without = draw(&lines, None, Scale::Linear).unwrap().unwrap();
        let strokes = |svg: &str| svg.matches("stroke=\"#5B6270\"").count();
        assert!(strokes(&svg) > strokes(&without));
        assert!(!svg.contains("http"));
    }

    #[test]
    fn values_that_are_hard_to_draw_are_drawn() {
        for values in [
            &[2.0][..],
            &[0.0, 0.0],
            &[-1.0, -1.0, 4.0],
            &[1e-12, 2e-12],
            &[1e300, -1e300],
            &[f64::NAN, 1.0, f64::INFINITY],
            &[1e-9, 1e9],
        ] {
            for scale in [Scale::Linear, Scale::Wide] {
                let svg = draw(&[line(Kind::Train, values)], None, scale).unwrap();
                let svg = svg.unwrap();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{values:?}");
            }
        }
        for values in [&[][..], &[f64::NAN]] {
            let lines = [line(Kind::Train, values)];
            assert!(draw(&lines, Some(1.0), Scale::Linear).unwrap().is_none());
        }
    }

    #[test]
    fn a_long_run_is_drawn_with_as_many_points_as_can_be_seen() {
        let values: Vec<f64> = (0..100_000).map(f64::from).collect();
        let drawable = line(Kind::Train, &values).drawable();
        assert_eq!(drawable.points.len(), MOST_POINTS);
        assert_eq!(drawable.points[0], (124.5, 124.5));
    }

    #[test]
    fn numbers_are_short() {
        let found = [0.0, 1e-17, 0.5, 0.0123, 12.0, 1234.5, 2e-5, 1.5e7, -3.25].map(number);
        let expected = [
            "0", "0", "0.5", "0.0123", "12", "1234", "2e-5", "1.5e7", "-3.25",
        ];
        assert_eq!(found, expected);
    }
}
