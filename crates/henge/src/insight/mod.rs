//! What explains a node's figures: why keys are not there. Each is asked for by a person or a monitor, and says of itself
//! how sure it is.

pub(crate) mod why;
