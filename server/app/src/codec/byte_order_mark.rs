//! The mark with which some programs begin a text in UTF-8; readers may pass over it (RFC 8259, section 8.1).

const UTF8_MARK: &[u8] = "\u{feff}".as_bytes();

/// `text` behind the mark, if it begins with one.
pub(crate) fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(UTF8_MARK).unwrap_or(text)
}
