(** Section 3.1, the reshaping of H⁻¹: padding (m < d_in) and cutting (m > d_in) keep positive semi-definiteness, so
    the Convergence Theorem applies to the reshaped inverse of any positive semi-definite H that has an inverse. *)

From Coq Require Import Reals Lra Lia Arith Bool.
From KernelSGD Require Import Definitions OneInstance.
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
  quadratic_form d_in (reshape m d_in X) z
  = quadratic_form m X (fun a => if (a <? Nat.min m d_in)%nat then z a else 0).
Proof.
  unfold quadratic_form. set (k := Nat.min m d_in).
  rewrite (sum_vanishing_tail k d_in), (sum_vanishing_tail k m); try (unfold k; lia).
  - apply sum_ext; intros a row. rewrite (sum_vanishing_tail k d_in), (sum_vanishing_tail k m); try (unfold k; lia).
    + apply sum_ext; intros b column. rewrite reshape_inside by assumption.
      apply Nat.ltb_lt in row, column. rewrite row, column. reflexivity.
    + intros b beyond. replace (b <? k)%nat with false by (symmetry; apply Nat.ltb_ge; lia). ring.
    + intros b beyond. rewrite reshape_outside by (fold k; lia). ring.
  - intros a beyond. apply sum_zero; intros b _.
    replace (a <? k)%nat with false by (symmetry; apply Nat.ltb_ge; lia). ring.
  - intros a beyond. apply sum_zero; intros b _. rewrite reshape_outside by (fold k; lia). ring.
Qed.

Theorem reshape_keeps_psd m d_in X : positive_semidefinite m X -> positive_semidefinite d_in (reshape m d_in X).
Proof. intros psd z. rewrite quadratic_form_reshape. apply psd. Qed.

(** vᵀ X v = wᵀ H w with w = X v, since v = H X v. *)
Theorem inverse_keeps_psd m H X : positive_semidefinite m H -> inverse m H X -> positive_semidefinite m X.
Proof.
  intros psd identity v. set (w := fun l => Σ b < m, X l b * v b).
  assert (solved : forall a, (a < m)%nat -> (Σ l < m, H a l * w l) = v a).
  { intros a row. unfold w.
    rewrite (sum_ext m _ (fun l => Σ b < m, (H a l * X l b) * v b))
      by (intros l _; rewrite <- sum_scale; apply sum_ext; intros; ring).
    rewrite sum_swap, (sum_ext m _ (fun b => one_hot a b * v b)).
    - apply (sum_one_hot m a v). assumption.
    - intros b column. rewrite (sum_scale_right (v b) m (fun l => H a l * X l b)), identity by assumption. reflexivity. }
  replace (quadratic_form m X v) with (quadratic_form m H w); [apply psd|].
  unfold quadratic_form. apply sum_ext; intros a row.
  rewrite (sum_ext m (fun b => w a * H a b * w b) (fun b => w a * (H a b * w b))) by (intros; ring).
  rewrite sum_scale, solved by assumption. unfold w. rewrite <- sum_scale_right. apply sum_ext; intros; ring.
Qed.

(** Eq. 5 as the paper applies it: for one instance, any m, any d_in and any η ≥ 0 the loss does not rise. *)
Theorem reshaped_inverse_one_instance n_c d_in m z i W eta H X :
  (i < n_c)%nat -> 0 <= eta -> positive_semidefinite m H -> inverse m H X ->
  J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) (reshape m d_in X)) <= J n_c d_in z i W.
Proof.
  intros label eta_nonneg psd identity. apply one_instance_any_step; [assumption|assumption|].
  apply reshape_keeps_psd, (inverse_keeps_psd m H); assumption.
Qed.
