(** Section 3.1, the reshaping of H⁻¹: padding (m < d_in) and cutting (m > d_in) keep positive semi-definiteness, so
    the Convergence Theorem applies to the reshaped inverse of any positive semi-definite H that has an inverse. *)

From Coq Require Import Reals Lra Lia Arith Bool.
From KernelSGD Require Import Definitions QuadraticForms OneInstance.
Open Scope R_scope.

Lemma reshape_inside m d_in X a b :
  (a < Nat.min m d_in)%nat -> (b < Nat.min m d_in)%nat -> reshape m d_in X a b = X a b.
Proof.
  intros row column. unfold reshape. apply Nat.ltb_lt in row, column. rewrite row, column. reflexivity.
Qed.

Lemma reshape_outside m d_in X a b :
  (Nat.min m d_in <= a)%nat \/ (Nat.min m d_in <= b)%nat -> reshape m d_in X a b = 0.
Proof.
  intros outside. unfold reshape.
  destruct (Nat.ltb_spec a (Nat.min m d_in)), (Nat.ltb_spec b (Nat.min m d_in)); simpl; reflexivity || lia.
Qed.

Theorem reshape_symmetric m d_in X : symmetric m X -> symmetric d_in (reshape m d_in X).
Proof.
  intros same a b _ _.
  destruct (le_lt_dec (Nat.min m d_in) a); [rewrite !reshape_outside by lia; reflexivity|].
  destruct (le_lt_dec (Nat.min m d_in) b); [rewrite !reshape_outside by lia; reflexivity|].
  rewrite !reshape_inside by assumption. apply same; lia.
Qed.

(** zᵀ reshape(X) z = z̃ᵀ X z̃, where z̃ is z with zeros beyond min(m, d_in). *)
Lemma quadratic_form_reshape m d_in X z :
  quadratic_form d_in (reshape m d_in X) z = quadratic_form m X (padded (Nat.min m d_in) z).
Proof.
  unfold quadratic_form. set (k := Nat.min m d_in).
  rewrite (sum_vanishing_tail k d_in), (sum_vanishing_tail k m); try (unfold k; lia).
  - apply sum_ext; intros a row. rewrite (sum_vanishing_tail k d_in), (sum_vanishing_tail k m); try (unfold k; lia).
    + apply sum_ext; intros b column. rewrite reshape_inside, !padded_inside by assumption. reflexivity.
    + intros b beyond. rewrite (padded_outside k z b) by lia. ring.
    + intros b beyond. rewrite reshape_outside by (fold k; lia). ring.
  - intros a beyond. apply sum_zero; intros b _. rewrite (padded_outside k z a) by lia. ring.
  - intros a beyond. apply sum_zero; intros b _. rewrite reshape_outside by (fold k; lia). ring.
Qed.

Theorem reshape_keeps_psd m d_in X : positive_semidefinite m X -> positive_semidefinite d_in (reshape m d_in X).
Proof. intros psd z. rewrite quadratic_form_reshape. apply psd. Qed.

(** vᵀ X v = wᵀ H w with w = X v, since H w = v. *)
Theorem inverse_keeps_psd m H X : positive_semidefinite m H -> inverse m H X -> positive_semidefinite m X.
Proof.
  intros psd identity v. replace (quadratic_form m X v) with (quadratic_form m H (product m X v)); [apply psd|].
  rewrite !quadratic_form_product. apply sum_ext; intros a row. rewrite product_inverse by assumption. ring.
Qed.

(** Eq. 5 as the paper applies it: for one instance, any m, any d_in and any η ≥ 0 the loss does not rise. *)
Theorem reshaped_inverse_one_instance n_c d_in m z i W eta H X :
  (i < n_c)%nat -> 0 <= eta -> positive_semidefinite m H -> inverse m H X ->
  J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) (reshape m d_in X)) <= J n_c d_in z i W.
Proof.
  intros label eta_nonneg psd identity. apply one_instance_any_step; [assumption|assumption|].
  apply reshape_keeps_psd, (inverse_keeps_psd m H); assumption.
Qed.
