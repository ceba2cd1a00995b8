(** Section 3.1, padding (m < d_in): the columns of W beyond m never move, and so neither does a bias that Section 3.3
    writes as the last element of each W_i.

    Nothing is assumed about G: the statement covers every loss, an L2 term inside J, and momentum in place of G. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions Reshape.
Open Scope R_scope.

Theorem frozen_column d_in eta W G P a :
  (forall b, (b < d_in)%nat -> P b a = 0) -> forall j, step d_in eta W G P j a = W j a.
Proof.
  intros zero_column j. unfold step. rewrite sum_zero; [ring|].
  intros b inside. rewrite zero_column by assumption. ring.
Qed.

(** Any number of steps, each with its own η, G and mini-batch inverse X of any size up to m. *)
Theorem frozen_forever d_in m (eta : nat -> R) (size : nat -> nat) (W G X : nat -> matrix) :
  (forall t, (size t <= m)%nat) ->
  (forall t, W (S t) = step d_in (eta t) (W t) (G t) (reshape (size t) d_in (X t))) ->
  forall t j a, (m <= a)%nat -> W t j a = W 0%nat j a.
Proof.
  intros small steps t j a beyond. induction t as [|t IH]; [reflexivity|].
  rewrite steps, frozen_column; [assumption|].
  intros b _. apply reshape_outside. specialize (small t). lia.
Qed.
