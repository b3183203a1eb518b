//! Slicing of records and plaintexts, as `bus.wire.sealed` and `bus.wire.envelope` do it. Each function accepts no more
//! than its Python twin does and answers `None` for all else; bytes are read by checked access only.

pub const HEADER: usize = 52;
pub const MAC_END: usize = 84;
pub const TAG: usize = 16;
pub const MAX_SEALED: usize = 1_000_000;
pub const MAX_PROFILE: usize = 16 * 1024;

/// A length at `at` and the place after it: at most 5 bytes, not negative, in shortest form.
pub fn read_length(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value: u64 = 0;
    for (count, &byte) in data.get(at..)?.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * count);
        if byte < 0x80 {
            if (byte == 0 && count > 0) || value & 1 == 1 {
                return None;
            }
            return Some(((value >> 1) as usize, at + count + 1));
        }
    }
    None
}

/// `count` as Avro writes a length.
pub fn push_length(out: &mut Vec<u8>, count: usize) {
    let mut value = (count as u64) << 1;
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Where the body of a Sealed begins; `head` is its marker and suite.
pub fn sealed_body(value: &[u8], head: &[u8]) -> Option<usize> {
    if value.len() > MAX_SEALED || !value.starts_with(head) {
        return None;
    }
    let (size, start) = read_length(value, MAC_END)?;
    (size >= TAG && start.checked_add(size)? == value.len()).then_some(start)
}

/// Where the parts of a plaintext stand; `end` is that of its content.
pub struct Split {
    pub profile: (usize, usize),
    pub message: usize,
    pub session: (usize, usize),
    pub causes: (usize, usize),
    pub reply_to: (usize, usize),
    /// Where a chunk's group begins, where there is one.
    pub chunk: Option<usize>,
    /// Where the payload's length stands.
    pub payload: usize,
    pub end: usize,
}

/// The parts of a plaintext without tickets and field protection, which Python reads.
/// `known` is a profile behind its length that it probably begins with.
pub fn split(plain: &[u8], mark: &[u8], known: &[u8]) -> Option<Split> {
    // What follows is looked for in the content alone: Python finds a part that ends in the padding to be too long.
    split_at(content(plain)?, 4, mark, known)
}

/// The content of a padded plaintext, with the length before it.
pub fn content(plain: &[u8]) -> Option<&[u8]> {
    let end = 4 + u32::from_be_bytes(plain.get(..4)?.try_into().ok()?) as usize;
    if plain.get(end..)?.iter().any(|&each| each != 0) {
        return None;
    }
    Some(&plain[..end])
}

/// `split` of an envelope that begins at `begin` and goes to the end of `plain`.
pub fn split_at(plain: &[u8], begin: usize, mark: &[u8], known: &[u8]) -> Option<Split> {
    let end = plain.len();
    let start = begin + mark.len();
    if !plain.get(begin..)?.starts_with(mark) {
        return None;
    }
    let message = if !known.is_empty() && plain[start..].starts_with(known) {
        start + known.len()
    } else {
        let (size, at) = read_length(plain, start)?;
        if size > MAX_PROFILE {
            return None;
        }
        at.checked_add(size)?
    };
    let session = text(plain, message.checked_add(32)?)?;
    let mut at = session.1;
    let causes = at;
    let count = *plain.get(at)?;
    at += 1;
    if count != 0 {
        if count & 0x81 != 0 {
            return None;
        }
        at += 8 * count as usize + 1;
        if *plain.get(at - 1)? != 0 {
            return None;
        }
    }
    let causes = (causes, at);
    let reply_to = text(plain, at)?;
    at = reply_to.1;
    at = nothing(plain, at)?; // tickets
    at = text(plain, at)?.1; // traceparent
    let chunk = match *plain.get(at)? {
        0 => None,
        2 => Some(at + 1),
        _ => return None,
    };
    at += if chunk.is_some() { 25 } else { 1 };
    at = nothing(plain, at)?; // field protection
    let (size, start_of_payload) = read_length(plain, at)?;
    (start_of_payload.checked_add(size)? == end).then_some(Split {
        profile: (start, message),
        message,
        session,
        causes,
        reply_to,
        chunk,
        payload: at,
        end,
    })
}

/// Start and end of a text whose length is one byte.
fn text(data: &[u8], at: usize) -> Option<(usize, usize)> {
    let size = *data.get(at)?;
    if size & 0x81 != 0 {
        return None;
    }
    let end = at + 1 + usize::from(size >> 1);
    std::str::from_utf8(data.get(at + 1..end)?).ok()?;
    Some((at + 1, end))
}

fn nothing(data: &[u8], at: usize) -> Option<usize> {
    (*data.get(at)? == 0).then_some(at + 1)
}
