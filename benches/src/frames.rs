//! As much of HTTP/2 as a gRPC client needs that sends one request over and over: RFC 9113 framing and a
//! fixed piece of RFC 7541 header compression.
//!
//! A full client costs as much CPU as the server that it is to measure; this one costs a fraction.

use std::net::SocketAddr;

pub(crate) const HEADER_BYTES: usize = 9;
/// The protocol's initial windows and largest frame, in bytes.
pub(crate) const INITIAL_WINDOW_BYTES: u32 = 65_535;
pub(crate) const FRAME_BYTES_MAX: usize = 16_384;
/// Before each message of gRPC.
pub(crate) const GRPC_HEADER_BYTES: usize = 5;
pub(crate) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const SETTINGS_ENABLE_PUSH: u16 = 0x2;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 0x4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Frame types by their numbers in RFC 9113, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    ResetStream,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Other,
}

/// The first nine bytes of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

// === impl Header ===

impl Header {
    pub(crate) fn read(bytes: &[u8; HEADER_BYTES]) -> Header {
        let kind = match bytes[3] {
            0x0 => Kind::Data,
            0x1 => Kind::Headers,
            0x3 => Kind::ResetStream,
            0x4 => Kind::Settings,
            0x6 => Kind::Ping,
            0x7 => Kind::GoAway,
            0x8 => Kind::WindowUpdate,
            _ => Kind::Other,
        };
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & WINDOW_BYTES_MAX;
        Header { length, kind, flags: bytes[4], stream }
    }
}

/// What opens a connection: the largest windows, so that answers never wait for us.
pub(crate) fn write_opening(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    write_frame(0x4, 0, 0, 12, out);
    for (setting, value) in [(SETTINGS_ENABLE_PUSH, 0), (SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES_MAX)] {
        out.extend_from_slice(&setting.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
    write_window_update(WINDOW_BYTES_MAX - INITIAL_WINDOW_BYTES, out);
}

/// Lets the server send `bytes` more on the connection.
pub(crate) fn write_window_update(bytes: u32, out: &mut Vec<u8>) {
    write_frame(0x8, 0, 0, 4, out);
    out.extend_from_slice(&bytes.to_be_bytes());
}

pub(crate) fn write_settings_ack(out: &mut Vec<u8>) {
    write_frame(0x4, ACK, 0, 0, out);
}

pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_frame(0x6, ACK, 0, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Ends a call that has no answer yet.
pub(crate) fn write_cancel(stream: u32, out: &mut Vec<u8>) {
    const CANCEL: u32 = 0x8;
    write_frame(0x3, 0, stream, 4, out);
    out.extend_from_slice(&CANCEL.to_be_bytes());
}

/// Writes one call. The first on a connection puts its headers into the server's table; the others name
/// them by their place in it, as every HTTP/2 client does.
pub(crate) fn write_call(stream: u32, authority: SocketAddr, message: &[u8], out: &mut Vec<u8>) {
    let mut block: Vec<u8> = Vec::new();
    // :method POST and :scheme http are entries 3 and 6 of the static table.
    block.extend_from_slice(&[0x83, 0x86]);
    if stream == 1 {
        // Entries 4 and 1 of the static table have the names :path and :authority.
        write_indexed_literal(Some(4), "", PATH, &mut block);
        write_indexed_literal(Some(1), "", &authority.to_string(), &mut block);
        write_indexed_literal(Some(31), "", "application/grpc", &mut block);
        write_indexed_literal(None, "te", "trailers", &mut block);
    } else {
        // The four above, the newest of which is entry 62.
        block.extend_from_slice(&[0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
    }
    write_frame(0x1, END_HEADERS, stream, block.len(), out);
    out.extend_from_slice(&block);
    let (first, rest) = message.split_at(message.len().min(FRAME_BYTES_MAX - GRPC_HEADER_BYTES));
    write_frame(0x0, end_of_stream(rest), stream, GRPC_HEADER_BYTES + first.len(), out);
    // gRPC's own frame: not compressed, four bytes of length.
    out.push(0);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(first);
    let mut rest = rest;
    while !rest.is_empty() {
        let (next, after) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
        write_frame(0x0, end_of_stream(after), stream, next.len(), out);
        out.extend_from_slice(next);
        rest = after;
    }
}

fn end_of_stream(rest: &[u8]) -> u8 {
    if rest.is_empty() { END_STREAM } else { 0 }
}

/// A literal that enters the dynamic table; its name is an entry of the static one, or written out.
fn write_indexed_literal(name_entry: Option<u8>, name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0x40 | name_entry.unwrap_or(0));
    let name = name_entry.is_none().then_some(name);
    for text in name.into_iter().chain([value]) {
        assert!(text.len() < 127, "lengths below 127 take one byte; this is a bug");
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

fn write_frame(kind: u8, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    let length = (length as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_framed_as_the_standard_says() {
        let mut bytes = Vec::new();
        write_call(1, "127.0.0.1:8001".parse().unwrap(), b"abc", &mut bytes);
        let header = Header::read(bytes[..9].try_into().unwrap());
        assert_eq!((header.kind, header.flags, header.stream), (Kind::Headers, END_HEADERS, 1));
        let data = &bytes[HEADER_BYTES + header.length..];
        let header = Header::read(data[..9].try_into().unwrap());
        assert_eq!((header.kind, header.flags, header.length), (Kind::Data, END_STREAM, 8));
        assert_eq!(data[9..], *b"\0\0\0\0\x03abc");

        bytes.clear();
        write_call(3, "127.0.0.1:8001".parse().unwrap(), b"", &mut bytes);
        assert_eq!(bytes[9..15], [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);
    }
}
