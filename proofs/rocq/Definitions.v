(** The paper's objects, in the paper's letters. Indices start at 0.

    W is n_c × d_in, one row for each class; z = G(x) in R^(d_in) is the input of the last layer; P is d_in × d_in. A
    vector is a function of its index and a matrix of its two; sizes are arguments of the operations, which look at
    no entry outside them. *)

From Coq Require Import Reals Arith Bool.
From KernelSGD Require Export Sums.
Open Scope R_scope.

Definition vector := nat -> R.
Definition matrix := nat -> nat -> R.

(** Section 3.3: f_j = W_j G(x). *)
Definition logits (d_in : nat) (W : matrix) (z : vector) : vector :=
  fun j => Σ a < d_in, W j a * z a.

(** a_j = exp f_j / Σ_l exp f_l. *)
Definition softmax (n_c : nat) (f : vector) : vector :=
  fun j => exp (f j) / (Σ l < n_c, exp (f l)).

(** Eq. 6: −f_i + ln Σ_j exp f_j, for the label i. *)
Definition cross_entropy (n_c : nat) (f : vector) (i : nat) : R :=
  - f i + ln (Σ j < n_c, exp (f j)).

(** softmax(f) − e_i: the gradient of Eq. 6 in the logits. *)
Definition residual (n_c : nat) (f : vector) (i : nat) : vector :=
  fun j => softmax n_c f j - one_hot i j.

(** One instance: its loss J(W), and the gradient (softmax(f) − e_i) zᵀ of J in W. *)
Definition J (n_c d_in : nat) (z : vector) (i : nat) (W : matrix) : R :=
  cross_entropy n_c (logits d_in W z) i.

Definition gradient (n_c d_in : nat) (z : vector) (i : nat) (W : matrix) : matrix :=
  fun j a => residual n_c (logits d_in W z) i j * z a.

(** A mini-batch of m instances with features Z (a row each) and labels y: the means of both. *)
Definition J_batch (n_c d_in m : nat) (Z : matrix) (y : nat -> nat) (W : matrix) : R :=
  (Σ k < m, J n_c d_in (Z k) (y k) W) / INR m.

Definition gradient_batch (n_c d_in m : nat) (Z : matrix) (y : nat -> nat) (W : matrix) : matrix :=
  fun j a => (Σ k < m, gradient n_c d_in (Z k) (y k) W j a) / INR m.

(** Eq. 4 and 5: W' = W − η G P, where P stands for the (reshaped) inverse. *)
Definition step (d_in : nat) (eta : R) (W G P : matrix) : matrix :=
  fun j a => W j a - eta * (Σ b < d_in, G j b * P b a).

(** zᵀ P z. *)
Definition quadratic_form (n : nat) (P : matrix) (z : vector) : R :=
  Σ a < n, Σ b < n, z a * P a b * z b.

Definition symmetric (n : nat) (P : matrix) : Prop :=
  forall a b, (a < n)%nat -> (b < n)%nat -> P a b = P b a.

Definition positive_semidefinite (n : nat) (P : matrix) : Prop :=
  forall z, 0 <= quadratic_form n P z.

(** ‖v‖². *)
Definition square_norm (n : nat) (v : vector) : R :=
  Σ a < n, v a * v a.

(** H X = I. *)
Definition inverse (n : nat) (H X : matrix) : Prop :=
  forall a b, (a < n)%nat -> (b < n)%nat -> (Σ l < n, H a l * X l b) = one_hot a b.

(** Section 3.1: an m × m matrix as d_in × d_in, padded with zeros (m < d_in) or cut (m > d_in). *)
Definition reshape (m d_in : nat) (X : matrix) : matrix :=
  fun a b => if (a <? Nat.min m d_in)%nat && (b <? Nat.min m d_in)%nat then X a b else 0.

(** H_ij = exp(−γ ‖x_i − x_j‖²) of the raw inputs x (a row each, of length d). *)
Definition rbf_gram (gamma : R) (d : nat) (x : matrix) : matrix :=
  fun i j => exp (- gamma * square_norm d (fun a => x i a - x j a)).
