//! A QR code as an SVG image.

use std::fmt::Write as _;

use dormouse_sdk::{Error, Result};
use qrcodegen::{QrCode, QrCodeEcc};

/// The empty border that readers need, in modules (ISO/IEC 18004).
const BORDER: i32 = 4;

/// The image: one path, a stroke of squares for each run of dark modules. Medium error correction, which survives a
/// scratch.
pub(crate) fn qr_code(text: &str) -> Result<String> {
    let code =
        QrCode::encode_text(text, QrCodeEcc::Medium).map_err(|error| Error::internal(error.to_string()))?;
    let side = code.size() + 2 * BORDER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/><path d=\""
    );
    for (x, y, length) in runs(&code) {
        write!(svg, "M{},{}h{length}v1h-{length}z", x + BORDER, y + BORDER)?;
    }
    svg.push_str("\"/></svg>\n");
    Ok(svg)
}

/// The runs of dark modules, row by row: where each begins and how long it is.
fn runs(code: &QrCode) -> Vec<(i32, i32, i32)> {
    let mut runs: Vec<(i32, i32, i32)> = Vec::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            match runs.last_mut() {
                Some((start, row, length)) if *row == y && *start + *length == x => *length += 1,
                _ => runs.push((x, y, 1)),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_are_the_dark_modules() -> Result<()> {
        let code = QrCode::encode_text("https://example.com/menu", QrCodeEcc::Medium)?;
        let runs = runs(&code);
        for y in 0..code.size() {
            for x in 0..code.size() {
                let covered = runs
                    .iter()
                    .filter(|(start, row, length)| *row == y && (*start..start + length).contains(&x));
                assert_eq!(covered.count(), usize::from(code.get_module(x, y)), "{x}, {y}");
            }
        }
        assert_eq!(runs.first(), Some(&(0, 0, 7)), "the finder pattern");
        Ok(())
    }

    #[test]
    fn the_image_has_a_border() -> Result<()> {
        let svg = qr_code("hello")?;
        assert!(svg.contains("viewBox=\"0 0 29 29\""), "{svg}");
        assert!(svg.contains("<path d=\"M4,4h7v1h-7z"), "{svg}");
        assert!(qr_code(&"x".repeat(3_000)).is_err());
        Ok(())
    }
}
