//! What a drafter drafts from.

use super::weights::MixtureWeights;
use crate::corpus::MergedLogs;
use crate::index::{NgramArrays, TaskArrays, TaskView};
use crate::text::InputTemplate;

/// Holds a task's data: its arrays, and weights fitted to it.
pub trait TaskData: Send + Sync {
    /// The arrays.
    fn view(&self) -> TaskView<'_>;

    /// Weights fitted to the task; `None`: the general ones serve.
    fn weights(&self) -> Option<&MixtureWeights> {
        None
    }

    /// Rows of write-ahead logs that the data holds.
    fn merged_logs(&self) -> &MergedLogs {
        MergedLogs::none()
    }

    /// What surrounds the input in the prompts that are given as inputs; `None`: they are inputs alone.
    fn input_template(&self) -> Option<&InputTemplate> {
        None
    }
}

impl TaskData for TaskArrays {
    fn view(&self) -> TaskView<'_> {
        self.view()
    }
}

impl TaskData for NgramArrays {
    fn view(&self) -> TaskView<'_> {
        TaskView { ngrams: self.view(), ..TaskView::default() }
    }
}
