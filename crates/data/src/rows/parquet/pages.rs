//! The pages of a Parquet table that are packed with gzip or zstd.
//!
//! The parquet crate unpacks snappy itself. Its zstd is a library in C, so these pages are read as if they were not packed
//! and unpacked here, in Rust.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use ruzstd::decoding::StreamingDecoder;

/// The rows of a table that are stored together.
pub(super) struct RowGroup<'a> {
    pub(super) file: Arc<Bytes>,
    pub(super) metadata: &'a RowGroupMetaData,
}

impl RowGroupReader for RowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.metadata.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let column = self.metadata.column(index);
        let rows = usize::try_from(self.metadata.num_rows())?;
        let file = Arc::clone(&self.file);
        let packing = match column.compression() {
            Compression::GZIP(_) => Packing::Gzip,
            Compression::ZSTD(_) => Packing::Zstd,
            _ => {
                return Ok(Box::new(SerializedPageReader::new(
                    file, column, rows, None,
                )?));
            }
        };
        let as_is = column.clone().into_builder();
        let as_is = as_is.set_compression(Compression::UNCOMPRESSED).build()?;
        let pages = SerializedPageReader::new(file, &as_is, rows, None)?;
        Ok(Box::new(PackedPages { pages, packing }))
    }

    fn get_column_bloom_filter(&self, _: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

#[derive(Debug, Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// Unpacks what stands behind the first `plain` bytes.
    fn unpack(self, bytes: &Bytes, plain: usize) -> Result<Bytes> {
        let failed = |error: String| ParquetError::General(format!("a page is damaged: {error}"));
        let short = || failed("it ends early".to_owned());
        let (before, packed) = bytes.split_at_checked(plain).ok_or_else(short)?;
        let mut unpacked = before.to_vec();
        // A page of nothing but nulls has no bytes.
        if !packed.is_empty() {
            match self {
                Self::Gzip => MultiGzDecoder::new(packed)
                    .read_to_end(&mut unpacked)
                    .map_err(|error| failed(error.to_string()))?,
                Self::Zstd => StreamingDecoder::new(packed)
                    .map_err(|error| failed(error.to_string()))?
                    .read_to_end(&mut unpacked)
                    .map_err(|error| failed(error.to_string()))?,
            };
        }
        Ok(unpacked.into())
    }
}

/// Pages, each of which is unpacked when it is asked for.
struct PackedPages {
    pages: SerializedPageReader<Bytes>,
    packing: Packing,
}

impl PackedPages {
    fn unpacked(&self, mut page: Page) -> Result<Page> {
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => {
                *buf = self.packing.unpack(buf, 0)?;
            }
            Page::DataPageV2 {
                buf,
                def_levels_byte_len: definitions,
                rep_levels_byte_len: repetitions,
                is_compressed,
                ..
            } => {
                if *is_compressed {
                    *buf = self
                        .packing
                        .unpack(buf, (*definitions + *repetitions) as usize)?;
                }
            }
        }
        Ok(page)
    }
}

impl Iterator for PackedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for PackedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.map(|page| self.unpacked(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}
