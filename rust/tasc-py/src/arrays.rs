//! Token ids across the boundary.
use numpy::{PyArrayLike1, TypeMustMatch};
use pyo3::prelude::*;
use tasc_core::TokenId;

use crate::error::InputError;

/// Token ids as they come: an array of uint32 without copying, or any sequence of integers.
pub(crate) fn with_ids<R>(ids: &Bound<'_, PyAny>, f: impl FnOnce(&[TokenId]) -> R) -> PyResult<R> {
    if let Ok(array) = ids.extract::<PyArrayLike1<'_, u32, TypeMustMatch>>()
        && let Ok(slice) = array.as_slice()
    {
        return Ok(f(slice));
    }
    let wide: Vec<i64> = match ids.call_method0("tolist") {
        Ok(list) => list.extract()?,
        Err(_) => ids.extract()?,
    };
    let narrow = wide.iter().map(|&id| TokenId::try_from(id).ok().filter(|&t| t < TokenId::MAX).ok_or(id));
    let ids = narrow.collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(|id| InputError::new_err(format!("token id {id} is out of range 0..{}", TokenId::MAX)))?;
    Ok(f(&ids))
}
