(** Section 3.3, Proposition (Eq. 8): when is the optimum closer in the projected space?

    In words: with S the symmetric root of H (Section 3.1 writes Ŵ = W S), ‖ΔW S‖ ≤ ‖ΔW‖ for every ΔW if and only if
    H ≤ I. The published assumption, trace H ≤ 1/n_c, is sufficient, but no RBF matrix meets it, nor H ≤ I: its
    diagonal is 1, so its trace is n, and for n ≥ 2 some optimum moves away. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions.
Open Scope R_scope.

(** ‖vec(M)‖_2. *)
Definition norm (n_c n : nat) (M : matrix) : R := sqrt (Σ j < n_c, square_norm n (M j)).

(** M S. *)
Definition projected (n : nat) (M S : matrix) : matrix := fun j b => Σ a < n, M j a * S a b.

(** H = S S with S symmetric. *)
Definition symmetric_root (n : nat) (S H : matrix) : Prop :=
  symmetric n S /\ forall a b, (a < n)%nat -> (b < n)%nat -> (Σ c < n, S a c * S c b) = H a b.

(** H ≤ I. *)
Definition at_most_identity (n : nat) (H : matrix) : Prop :=
  forall v, quadratic_form n H v <= square_norm n v.

Definition trace (n : nat) (H : matrix) : R := Σ a < n, H a a.

(** ‖v S‖² = vᵀ H v. *)
Lemma square_norm_projected_row n S H v :
  symmetric_root n S H -> square_norm n (fun b => Σ a < n, v a * S a b) = quadratic_form n H v.
Proof.
  intros [same root]. unfold square_norm, quadratic_form.
  rewrite (sum_ext n _ (fun b => Σ a < n, Σ c < n, v a * (S a b * S b c) * v c)).
  - rewrite sum_swap. apply sum_ext; intros a row. rewrite sum_swap. apply sum_ext; intros c column.
    rewrite sum_scale_right, sum_scale, root by assumption. reflexivity.
  - intros b inside. rewrite sum_product. apply sum_ext; intros a row. apply sum_ext; intros c column.
    rewrite (same b c) by assumption. ring.
Qed.

Lemma square_norm_nonneg n v : 0 <= square_norm n v.
Proof. apply sum_nonneg; intros. apply Rle_0_sqr. Qed.

(** The vector v as row 0 of a matrix that is otherwise 0. *)
Definition first_row (v : vector) : matrix := fun j a => match j with O => v a | _ => 0 end.

Lemma norm_first_row n_c n v : (0 < n_c)%nat -> norm n_c n (first_row v) = sqrt (square_norm n v).
Proof.
  intros some. unfold norm. f_equal. rewrite (sum_vanishing_tail 1 n_c).
  - simpl. rewrite Rplus_0_l. reflexivity.
  - lia.
  - intros [|j] beyond; [lia|]. apply sum_zero; intros; simpl; ring.
Qed.

Lemma norm_projected_first_row n_c n S v :
  (0 < n_c)%nat -> norm n_c n (projected n (first_row v) S) = sqrt (square_norm n (fun b => Σ a < n, v a * S a b)).
Proof.
  intros some. unfold norm. f_equal. rewrite (sum_vanishing_tail 1 n_c).
  - simpl. rewrite Rplus_0_l. reflexivity.
  - lia.
  - intros [|j] beyond; [lia|]. apply sum_zero; intros b _. unfold projected.
    rewrite sum_zero by (intros; simpl; ring). ring.
Qed.

(** Eq. 8 with its exact condition; ΔW = W* − W, and ΔŴ = ΔW S = Ŵ* − Ŵ. *)
Theorem proposition n_c n S H :
  (0 < n_c)%nat -> symmetric_root n S H ->
  ((forall W_optimal W : matrix,
      norm n_c n (fun j b => projected n W_optimal S j b - projected n W S j b)
      <= norm n_c n (fun j a => W_optimal j a - W j a))
   <-> at_most_identity n H).
Proof.
  intros some root. split.
  - intros closer v. specialize (closer (first_row v) (fun _ _ => 0)).
    replace (norm n_c n (fun j b => projected n (first_row v) S j b - projected n (fun _ _ => 0) S j b))
      with (norm n_c n (projected n (first_row v) S)) in closer.
    + replace (norm n_c n (fun j a => first_row v j a - 0)) with (norm n_c n (first_row v)) in closer.
      * rewrite norm_first_row, norm_projected_first_row, (square_norm_projected_row n S H v root) in closer
          by assumption.
        apply sqrt_le_0 in closer; [assumption| |apply square_norm_nonneg].
        rewrite <- (square_norm_projected_row n S H v root). apply square_norm_nonneg.
      * unfold norm, square_norm. f_equal. apply sum_ext; intros. apply sum_ext; intros. ring.
    + unfold norm, square_norm. f_equal. apply sum_ext; intros. apply sum_ext; intros.
      replace (projected n (fun _ _ => 0) S k k0) with 0; [ring|].
      symmetry. apply sum_zero; intros; ring.
  - intros below W_optimal W. apply sqrt_le_1_alt. apply sum_le; intros j _.
    eapply Rle_trans; [|apply below]. rewrite <- (square_norm_projected_row n S H _ root). apply Req_le.
    apply sum_ext; intros b _. unfold projected. rewrite <- sum_minus.
    rewrite (sum_ext n (fun a => W_optimal j a * S a b - W j a * S a b) (fun a => (W_optimal j a - W j a) * S a b))
      by (intros; ring).
    reflexivity.
Qed.

(** vᵀHv ≤ trace(H) ‖v‖²: with no eigenvalue below 0, none exceeds their sum. *)
Lemma quadratic_form_le_trace n S H v :
  symmetric_root n S H -> quadratic_form n H v <= trace n H * square_norm n v.
Proof.
  intros root. rewrite <- (square_norm_projected_row n S H v root). destruct root as [same root].
  unfold square_norm at 1, trace. rewrite <- sum_scale_right. apply sum_le; intros b inside.
  eapply Rle_trans; [apply cauchy_schwarz|]. rewrite Rmult_comm.
  apply Req_le. f_equal. rewrite <- root by assumption. apply sum_ext; intros a row.
  rewrite (same a b) by assumption. reflexivity.
Qed.

(** The Proposition under its published assumption (the sum of the eigenvalues is the trace). *)
Theorem proposition_under_the_trace_assumption n_c n S H W_optimal W :
  (0 < n_c)%nat -> symmetric_root n S H -> trace n H <= / INR n_c ->
  norm n_c n (fun j b => projected n W_optimal S j b - projected n W S j b)
  <= norm n_c n (fun j a => W_optimal j a - W j a).
Proof.
  intros some root small. apply (proposition n_c n S H some root). intros v.
  eapply Rle_trans; [apply (quadratic_form_le_trace n S); assumption|].
  assert (1 <= INR n_c) by (apply (le_INR 1); lia).
  assert (/ INR n_c <= 1) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
  assert (0 <= square_norm n v) by apply square_norm_nonneg. nra.
Qed.

(** … which no RBF matrix meets, for any γ, raw inputs, n ≥ 1 and n_c ≥ 2. *)
Theorem rbf_trace gamma d x n : trace n (rbf_gram gamma d x) = INR n.
Proof.
  unfold trace. rewrite (sum_ext n _ (fun _ => 1)).
  - rewrite sum_constant. ring.
  - intros a _. unfold rbf_gram, square_norm.
    rewrite sum_zero by (intros; ring). rewrite Rmult_0_r. apply exp_0.
Qed.

Theorem rbf_never_meets_the_trace_assumption gamma d x n n_c :
  (1 <= n)%nat -> (2 <= n_c)%nat -> / INR n_c < trace n (rbf_gram gamma d x).
Proof.
  intros some several. rewrite rbf_trace.
  assert (1 <= INR n) by (apply (le_INR 1); assumption).
  assert (2 <= INR n_c) by (apply (le_INR 2); assumption).
  assert (/ INR n_c <= / 2) by (apply Rinv_le_contravar; lra). lra.
Qed.

(** Nor does an RBF matrix of two or more instances meet H ≤ I: look at v = e_0 + e_1. *)
Theorem rbf_never_at_most_identity gamma d x n : (2 <= n)%nat -> ~ at_most_identity n (rbf_gram gamma d x).
Proof.
  intros several below. set (v := fun a : nat => if (a <? 2)%nat then 1 else 0).
  specialize (below v).
  assert (tail : forall a, (2 <= a < n)%nat -> v a = 0).
  { intros a beyond. unfold v. replace (a <? 2)%nat with false by (symmetry; apply Nat.ltb_ge; lia). reflexivity. }
  unfold quadratic_form, square_norm in below.
  rewrite (sum_vanishing_tail 2 n (fun a => v a * v a)) in below
    by (try assumption; intros; rewrite tail by assumption; ring).
  rewrite (sum_vanishing_tail 2 n (fun a => Σ b < n, v a * rbf_gram gamma d x a b * v b)) in below
    by (try assumption; intros a beyond; apply sum_zero; intros; rewrite (tail a beyond); ring).
  rewrite (sum_ext 2 _ (fun a => Σ b < 2, v a * rbf_gram gamma d x a b * v b)) in below.
  - assert (diagonal : forall a, rbf_gram gamma d x a a = 1).
    { intros a. unfold rbf_gram, square_norm. rewrite sum_zero by (intros; ring). rewrite Rmult_0_r. apply exp_0. }
    assert (0 < rbf_gram gamma d x 0%nat 1%nat) by apply exp_pos.
    assert (0 < rbf_gram gamma d x 1%nat 0%nat) by apply exp_pos.
    unfold v in below. simpl in below. rewrite !diagonal in below. lra.
  - intros a _. apply sum_vanishing_tail; [assumption|]. intros b beyond. rewrite (tail b beyond). ring.
Qed.
