(** Numbers: what evaluates the definitions at rational inputs, for the enclosures that [enclosure.py] writes.

    The tactic [interval] computes with machine integers, and so brings their axioms; no theorem of the folder above
    stands on this file. *)

From Coq Require Import Reals List.
From Interval Require Import Tactic.
From KernelSGD Require Import Definitions.
Import ListNotations.
Open Scope R_scope.

Definition of_rows (rows : list (list R)) : matrix := fun i j => nth j (nth i rows []) 0.

Definition of_labels (labels : list nat) : nat -> nat := fun k => nth k labels 0%nat.

(** Writes every sum out, and bounds what is then an expression in numbers. *)
Ltac enclose :=
  cbv [J_batch J gradient_batch gradient residual softmax cross_entropy logits step rbf_gram square_norm one_hot
       of_rows of_labels sum nth Nat.eqb INR];
  split; interval with (i_prec 120).
