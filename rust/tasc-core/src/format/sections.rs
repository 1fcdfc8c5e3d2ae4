//! Structures of arrays that are the same in memory, in a file and borrowed for a query.
//!
//! `sections!` takes one list of arrays and makes a structure of it that is generic in where the arrays lie
//! ([`Storage`]), with `open`, `write` and `view`. A section of the file bears the name of its array.

use std::fmt::Debug;
use std::ops::Deref;

use bytemuck::Pod;

use super::file::Bytes;
use super::{File, Section};
use crate::Result;

/// What an array of a file may hold.
pub trait Element: Pod + Debug + PartialEq {}

impl<T: Pod + Debug + PartialEq> Element for T {}

/// Where the arrays of a structure lie.
pub trait Storage: Clone + Debug + Default + PartialEq {
    /// An array of elements `T`; the default is empty.
    type Array<T: Element>: Clone + Debug + Default + PartialEq + Deref<Target = [T]>;
}

/// Arrays in memory, to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned;

/// Arrays of an open file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped;

/// Slices of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Borrowed<'a>(std::marker::PhantomData<&'a ()>);

impl Storage for Owned {
    type Array<T: Element> = Vec<T>;
}

impl Storage for Mapped {
    type Array<T: Element> = MappedArray<T>;
}

impl<'a> Storage for Borrowed<'a> {
    type Array<T: Element> = &'a [T];
}

/// A section together with the bytes that it lies in.
#[derive(Clone, Debug)]
pub struct MappedArray<T> {
    bytes: Bytes,
    section: Section<T>,
}

impl<T> Default for MappedArray<T> {
    fn default() -> Self {
        Self { bytes: Bytes::default(), section: Section::default() }
    }
}

impl<T: Element> PartialEq for MappedArray<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod> Deref for MappedArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.section.within(self.bytes.get())
    }
}

impl File {
    /// Finds a section; the array holds on to the file's bytes.
    ///
    /// # Errors
    /// As [`File::section`].
    pub fn array<T: Pod>(&self, name: &str) -> Result<MappedArray<T>> {
        Ok(MappedArray { section: self.section(name)?, bytes: self.shared() })
    }

    /// Whether the file has a section of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sections().any(|s| s.0 == name)
    }
}

/// Makes a structure of arrays from the list of its sections.
///
/// `sections! { pub struct Arrays as View { … } … }` defines `Arrays<S: Storage = Owned>` and `View<'a>`, the borrowed
/// form that queries are written for. After the plain arrays come up to three more blocks:
///
/// - `{ name: [T], }`: an array; its section is called `name`, with the structure's prefix before it
/// - `nested { name: Other = "prefix", }`: another such structure, whose sections get this prefix
/// - `optional { name: [T], }`: an array that is empty where the file lacks it, and is not written when it is empty
/// - `optional nested { name: Other = "prefix", }`: an `Option`, `None` where the file has none of its sections
macro_rules! sections {
    ($(#[$meta:meta])* pub struct $arrays:ident as $view:ident {
        $($(#[$doc:meta])* $field:ident: [$t:ty],)*
    }
        $(nested { $($(#[$nested_doc:meta])* $nested:ident: $other:ident = $prefix:literal,)* })?
        $(optional { $($(#[$opt_doc:meta])* $opt:ident: [$opt_t:ty],)* })?
        $(optional nested { $($(#[$on_doc:meta])* $on:ident: $on_other:ident = $on_prefix:literal,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $arrays<S: $crate::format::Storage = $crate::format::Owned> {
            $($(#[$doc])* pub $field: S::Array<$t>,)*
            $($($(#[$nested_doc])* pub $nested: $other<S>,)*)?
            $($($(#[$opt_doc])* pub $opt: S::Array<$opt_t>,)*)?
            $($($(#[$on_doc])* pub $on: Option<$on_other<S>>,)*)?
        }

        #[doc = concat!("[`", stringify!($arrays), "`], borrowed for queries.")]
        pub type $view<'a> = $arrays<$crate::format::Borrowed<'a>>;

        impl Copy for $view<'_> {}

        impl<S: $crate::format::Storage> $arrays<S> {
            /// The arrays as slices.
            #[must_use]
            pub fn view(&self) -> $view<'_> {
                $arrays {
                    $($field: &self.$field,)*
                    $($($nested: self.$nested.view(),)*)?
                    $($($opt: &self.$opt,)*)?
                    $($($on: self.$on.as_ref().map($on_other::view),)*)?
                }
            }

            /// Writes every array as a section, `prefix` before its name.
            ///
            /// # Errors
            /// As [`Writer::section`](crate::format::Writer::section).
            #[allow(unused_variables)] // a structure of structures alone has no section that is called by `prefix`
            pub fn write(&self, out: &mut $crate::format::Writer, prefix: &str) -> $crate::Result<()> {
                $(out.section::<$t>(&format!("{prefix}{}", stringify!($field)), &self.$field)?;)*
                $($(self.$nested.write(out, $prefix)?;)*)?
                $($(if !self.$opt.is_empty() {
                    out.section::<$opt_t>(&format!("{prefix}{}", stringify!($opt)), &self.$opt)?;
                })*)?
                $($(if let Some(nested) = &self.$on {
                    nested.write(out, $on_prefix)?;
                })*)?
                Ok(())
            }
        }

        impl $arrays<$crate::format::Mapped> {
            /// The arrays of an open file.
            ///
            /// # Errors
            /// [`Error::Format`](crate::Error::Format) when a section is missing or does not hold whole elements.
            #[allow(unused_variables)]
            pub fn open(file: &$crate::format::File, prefix: &str) -> $crate::Result<Self> {
                Ok(Self {
                    $($field: file.array(&format!("{prefix}{}", stringify!($field)))?,)*
                    $($($nested: $other::open(file, $prefix)?,)*)?
                    $($($opt: match format!("{prefix}{}", stringify!($opt)) {
                        name if file.has(&name) => file.array(&name)?,
                        _ => Default::default(),
                    },)*)?
                    $($($on: $on_other::is_in(file, $on_prefix).then(|| $on_other::open(file, $on_prefix)).transpose()?,)*)?
                })
            }

            /// Whether the file has any of the arrays.
            #[allow(dead_code, unused_variables)] // asked of optional structures only
            pub(crate) fn is_in(file: &$crate::format::File, prefix: &str) -> bool {
                $(file.has(&format!("{prefix}{}", stringify!($field))) ||)* $($($other::is_in(file, $prefix) ||)*)? false
            }
        }
    };
}
pub(crate) use sections;
