//! Containers taken apart and put together again, with right checksums, as docs/format.md specifies them.
#![allow(dead_code)] // no test needs all of it
use tasc_core::format::HEADER_BYTES;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of an entry of the section table.
const ENTRY_BYTES: usize = 40;

/// A container: its header, and the names and bytes of its sections.
#[derive(Clone)]
pub(crate) struct Forged {
    header: Vec<u8>,
    pub(crate) sections: Vec<(String, Vec<u8>)>,
}

impl Forged {
    pub(crate) fn of(good: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap()) as usize;
        let sections = good[number(56)..].chunks_exact(ENTRY_BYTES).enumerate().map(|(k, entry)| {
            let name = String::from_utf8(entry[..16].iter().copied().take_while(|&b| b != 0).collect()).unwrap();
            let at = number(56) + k * ENTRY_BYTES;
            (name, good[number(at + 16)..][..number(at + 24)].to_vec())
        });
        Self { header: good[..HEADER_BYTES].to_vec(), sections: sections.collect() }
    }

    /// The bytes of a section.
    pub(crate) fn section(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.sections.iter_mut().find(|s| s.0 == name).unwrap().1
    }

    /// The elements of a section.
    pub(crate) fn get<T: bytemuck::Pod>(&mut self, name: &str) -> Vec<T> {
        bytemuck::pod_collect_to_vec(self.section(name))
    }

    /// Replaces a section.
    pub(crate) fn set<T: bytemuck::Pod>(mut self, name: &str, elements: &[T]) -> Self {
        *self.section(name) = bytemuck::cast_slice(elements).to_vec();
        self
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (mut out, mut table) = (self.header.clone(), Vec::new());
        let align = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(64), 0);
        for (name, bytes) in &self.sections {
            align(&mut out);
            table.extend(name.bytes().chain(std::iter::repeat(0)).take(16));
            table.extend([out.len() as u64, bytes.len() as u64, xxh3_64(bytes)].iter().flat_map(|n| n.to_le_bytes()));
            out.extend(bytes);
        }
        align(&mut out);
        let table_at = out.len() as u64;
        let length = table_at + table.len() as u64;
        out[48..56].copy_from_slice(&length.to_le_bytes());
        out[56..64].copy_from_slice(&table_at.to_le_bytes());
        out[64..68].copy_from_slice(&(self.sections.len() as u32).to_le_bytes());
        let sum = xxh3_64(&[&out[..HEADER_BYTES - 8], &table].concat());
        out[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        out.extend(table);
        out
    }
}
