//! A small straight-line program over scalars: what `map` runs for every element. Eager execution of one operator is a
//! program of one step; a fused group is a program of many.

use crate::{Class, DType, Number, ScalarFn};

/// Where a program's value comes from. Values are numbered: inputs first, then the result of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// The next tensor operand, converted to this class when loaded.
    Operand(Class),
    /// A number, the same for every element.
    Number(Number, Class),
}

impl Input {
    /// The class that the value has inside the program.
    pub fn class(self) -> Class {
        match self {
            Input::Operand(c) | Input::Number(_, c) => c,
        }
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepOp {
    /// A row of the table, in the class of its arguments.
    Apply(ScalarFn),
    /// The argument rounded to `DType` and brought back into a class (its own, or that of another dtype). This is how a fused
    /// chain keeps the bits that storing an intermediate result would have given it.
    Convert(DType, Class),
}

/// One step: an operation on earlier values. Unused arguments are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    pub op: StepOp,
    /// The class of the arguments.
    pub class: Class,
    pub args: [u16; 4],
}

/// A straight-line program: inputs, steps, and which values are its results.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    pub inputs: &'a [Input],
    pub steps: &'a [Step],
    /// Value numbers; each is converted to its output operand's dtype when stored.
    pub results: &'a [u16],
}

impl Program<'_> {
    /// The class of value `v`.
    pub fn class_of(&self, v: u16) -> Class {
        let v = v as usize;
        match v.checked_sub(self.inputs.len()) {
            None => self.inputs[v].class(),
            Some(s) => match self.steps[s].op {
                StepOp::Apply(_) => self.steps[s].class,
                StepOp::Convert(_, class) => class,
            },
        }
    }
    /// The operand index of each tensor input, in order, is its rank among `Input::Operand`s.
    pub fn operands(&self) -> usize {
        self.inputs.iter().filter(|i| matches!(i, Input::Operand(_))).count()
    }
}
