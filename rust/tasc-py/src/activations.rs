//! Activations as integers across the boundary.
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;
use tasc_core::round_activations;

use crate::error::InputError;

/// Least rows of bytes: oneDNN's product is faster with four rows than with two.
const LEAST_ROWS: usize = 4;

/// The bytes, and the peak of each row.
type Rounded<'py> = (Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<f32>>);

/// Round rows of activations to 16 bits, for a product with int8 weights. A row does not depend on the others.
#[pyfunction]
pub(crate) fn activation_bytes<'py>(py: Python<'py>, rows: PyReadonlyArray2<'py, f32>) -> PyResult<Rounded<'py>> {
    let array = rows.as_array();
    let (count, width) = array.dim();
    let values = array.as_slice().ok_or_else(|| InputError::new_err("rows must be contiguous"))?;
    let height = (2 * count).max(LEAST_ROWS);
    let mut bytes = vec![0; height * width];
    let (low, rest) = bytes.split_at_mut(count * width);
    let chunk = width.max(1);
    let lines = values.chunks_exact(chunk).zip(low.chunks_exact_mut(chunk).zip(rest.chunks_exact_mut(chunk)));
    let peaks: Vec<f32> = lines.map(|(row, (low, high))| round_activations(row, low, high)).collect();
    let peaks = PyArray1::from_vec(py, peaks);
    let peaks = peaks.reshape([count, 1])?;
    Ok((PyArray1::from_vec(py, bytes).reshape([height, width])?, peaks))
}
