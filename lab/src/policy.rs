//! Policy judged three times: as a case says, as the evaluator finds, and by packets.
//!
//! A [`case::Case`] is data: objects, and in short what they should lead to. [`world`]
//! has the pods that cases are about, [`inputs`] tells the evaluator of the objects
//! that the API server holds, and [`cell`] is one question with a yes or a no. [`random`]
//! makes cases that nobody wrote.

pub mod case;
pub mod cell;
pub mod inputs;
pub mod judge;
pub mod random;
pub mod world;
