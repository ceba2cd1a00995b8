(** The 4 of MiniBatch.v cannot be raised, for any number of classes: with η λ_max(Z P Zᵀ/m) = C > 4 the mean loss can
    rise, even for P = I.

    The two instances of Counterexample.v with the logits u and 0 of their classes, and −M for every other class. Near
    u = 0 the step takes u to about (1 − C/2) u, past −u; for M large the other classes do not matter. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions LogSumExp MiniBatch Counterexample.
Open Scope R_scope.

(** W with the rows u, 0, −M, …, −M. *)
Definition weights_with_rest (u M : R) : matrix :=
  fun j _ => match j with O => u | S O => 0 | _ => - M end.

Lemma sum_first_two n u : sum (S (S n)) u = u 0%nat + u 1%nat + (Σ k < n, u (S (S k))).
Proof.
  induction n as [|n IH]; [simpl; ring|].
  change (sum (S (S (S n))) u) with (sum (S (S n)) u + u (S (S n))). rewrite IH. simpl. ring.
Qed.

(** J = ln(Σ_j e^(f_j) e^(−(f_0 + f_1)/2)), f = W. *)
Lemma J_batch_opposite n_c W :
  (0 < n_c)%nat ->
  J_batch n_c 1 2 same_feature opposite_labels W
  = ln ((Σ j < n_c, exp (W j 0%nat)) * exp (- (W 0%nat 0%nat + W 1%nat 0%nat) / 2)).
Proof.
  intros some.
  assert (logit : forall k j, logits 1 W (same_feature k) j = W j 0%nat)
    by (intros; unfold logits, same_feature; simpl; ring).
  rewrite ln_mult, ln_exp by (apply exp_pos || (apply sum_exp_pos with (f := fun j => W j 0%nat); assumption)).
  unfold J_batch, J, cross_entropy, opposite_labels. replace (INR 2) with 2 by (simpl; ring).
  cbn [sum]. rewrite !logit.
  rewrite !(sum_ext n_c (fun j => exp (logits 1 W _ j)) (fun j => exp (W j 0%nat)))
    by (intros; rewrite logit; reflexivity).
  field.
Qed.

(** Whatever the other classes do, J is at least ln(e^(v/2) + e^(−v/2)), v = f_0 − f_1. *)
Lemma J_batch_opposite_lower_bound n W :
  let v := W 0%nat 0%nat - W 1%nat 0%nat in
  ln (exp (v / 2) + exp (- (v / 2))) <= J_batch (S (S n)) 1 2 same_feature opposite_labels W.
Proof.
  intros v. rewrite J_batch_opposite by lia.
  assert (0 < exp (v / 2)) by apply exp_pos. assert (0 < exp (- (v / 2))) by apply exp_pos.
  assert (rest : 0 <= (Σ k < n, exp (W (S (S k)) 0%nat))) by (apply sum_nonneg; intros; left; apply exp_pos).
  set (half := exp (- (W 0%nat 0%nat + W 1%nat 0%nat) / 2)). assert (0 < half) by apply exp_pos.
  apply OneInstance.ln_le; [lra|]. rewrite sum_first_two.
  replace (exp (v / 2)) with (exp (W 0%nat 0%nat) * half) by (unfold half; rewrite <- exp_plus; f_equal; unfold v; field).
  replace (exp (- (v / 2))) with (exp (W 1%nat 0%nat) * half)
    by (unfold half; rewrite <- exp_plus; f_equal; unfold v; field).
  nra.
Qed.

(** J before the step, with r = n e^−M from the other classes. *)
Lemma J_batch_with_rest n u M :
  J_batch (S (S n)) 1 2 same_feature opposite_labels (weights_with_rest u M)
  = ln (exp (u / 2) + exp (- (u / 2)) + INR n * exp (- M) * exp (- (u / 2))).
Proof.
  rewrite J_batch_opposite by lia. rewrite sum_first_two. simpl. rewrite sum_constant, exp_0.
  replace (- (u + 0) / 2) with (- (u / 2)) by field. f_equal.
  replace (exp (u / 2)) with (exp u * exp (- (u / 2))) by (rewrite <- exp_plus; f_equal; field). ring.
Qed.

(** u' = u − η P (e^u − 1)/(e^u + 1 + r). *)
Lemma difference_after_step_with_rest n u M eta P :
  let W := weights_with_rest u M in
  let W' := step 1 eta W (gradient_batch (S (S n)) 1 2 same_feature opposite_labels W) P in
  W' 0%nat 0%nat - W' 1%nat 0%nat
  = u - eta * P 0%nat 0%nat * ((exp u - 1) / (exp u + 1 + INR n * exp (- M))).
Proof.
  intros W W'.
  assert (0 < exp u) by apply exp_pos.
  assert (0 <= INR n * exp (- M)) by (apply Rmult_le_pos; [apply pos_INR|left; apply exp_pos]).
  assert (logit : forall k j, logits 1 W (same_feature k) j = W j 0%nat)
    by (intros; unfold logits, same_feature; simpl; ring).
  assert (total : forall k, (Σ l < S (S n), exp (logits 1 W (same_feature k) l)) = exp u + 1 + INR n * exp (- M)).
  { intros k. rewrite sum_first_two, !logit, (sum_ext n _ (fun _ => exp (- M))) by (intros; rewrite logit; reflexivity).
    rewrite sum_constant. unfold W. simpl. rewrite exp_0. reflexivity. }
  unfold W', step, gradient_batch, gradient, residual, softmax. replace (INR 2) with 2 by (simpl; ring).
  revert total. generalize (S (S n)). intros n_c total.
  cbn [sum]. rewrite !total, !logit. unfold W, opposite_labels, same_feature, one_hot. simpl. rewrite exp_0. field. lra.
Qed.

Lemma rest_can_be_small n bound : 0 < bound -> exists M, INR n * exp (- M) < bound.
Proof.
  intros pos. assert (0 < INR (S n)) by (apply lt_0_INR; lia). assert (more : INR n < INR (S n)) by (apply lt_INR; lia).
  exists (- ln (bound / INR (S n))). rewrite Ropp_involutive, exp_ln by (apply Rdiv_lt_0_compat; assumption).
  apply Rmult_lt_reg_r with (INR (S n)); [assumption|].
  replace (INR n * (bound / INR (S n)) * INR (S n)) with (INR n * bound) by (field; lra). nra.
Qed.

(** The step takes u past −(u + δ) as long as r is small, and J(u + δ) is above J(u) with that r. *)
Lemma rises_with_rest n C :
  4 < C ->
  exists u M,
    J_batch (S (S n)) 1 2 same_feature opposite_labels (weights_with_rest u M)
    < J_batch (S (S n)) 1 2 same_feature opposite_labels
        (step 1 C (weights_with_rest u M)
           (gradient_batch (S (S n)) 1 2 same_feature opposite_labels (weights_with_rest u M)) one_hot).
Proof.
  intros above. set (u := (C - 4) / 4).
  assert (u_pos : 0 < u) by (unfold u; lra).
  assert (1 + u < exp u) by (apply exp_ineq1; lra).
  assert (spare : 0 < C * (exp u - 1) - 2 * u * (exp u + 1)) by (replace C with (4 + 4 * u) by (unfold u; field); nra).
  set (spare_amount := C * (exp u - 1) - 2 * u * (exp u + 1)) in *.
  set (delta := spare_amount / (2 * (exp u + 1))).
  assert (delta_pos : 0 < delta) by (apply Rdiv_lt_0_compat; lra).
  assert (delta_share : delta * (exp u + 1) = spare_amount / 2) by (unfold delta; field; lra).
  assert (gap := exp_plus_inverse_increases (u / 2) ((u + delta) / 2) ltac:(lra) ltac:(lra)).
  set (gap_amount := exp ((u + delta) / 2) + exp (- ((u + delta) / 2)) - (exp (u / 2) + exp (- (u / 2)))).
  set (bound := Rmin (spare_amount / 2 / (2 * u + delta)) (gap_amount / exp (- (u / 2)))).
  assert (0 < exp (- (u / 2))) by apply exp_pos.
  assert (0 < bound) by (apply Rmin_glb_lt; apply Rdiv_lt_0_compat; unfold gap_amount; lra).
  destruct (rest_can_be_small n bound) as [M small]; [assumption|].
  set (r := INR n * exp (- M)) in *.
  assert (r_nonneg : 0 <= r) by (apply Rmult_le_pos; [apply pos_INR|left; apply exp_pos]).
  assert (r_spare : (2 * u + delta) * r <= spare_amount / 2).
  { apply Rle_trans with ((2 * u + delta) * (spare_amount / 2 / (2 * u + delta))); [|right; field; lra].
    apply Rmult_le_compat_l; [lra|]. apply Rle_trans with bound; [lra|apply Rmin_l]. }
  assert (r_gap : r * exp (- (u / 2)) < gap_amount).
  { apply Rlt_le_trans with (gap_amount / exp (- (u / 2)) * exp (- (u / 2))); [|right; field; lra].
    apply Rmult_lt_compat_r; [assumption|]. apply Rlt_le_trans with bound; [assumption|apply Rmin_r]. }
  exists u, M. eapply Rlt_le_trans; [|apply J_batch_opposite_lower_bound].
  rewrite J_batch_with_rest, difference_after_step_with_rest, one_hot_same. fold r.
  set (past := C * 1 * ((exp u - 1) / (exp u + 1 + r)) - u).
  assert (far : u + delta <= past).
  { assert (2 * u + delta <= C * 1 * ((exp u - 1) / (exp u + 1 + r))); [|unfold past; lra].
    apply Rmult_le_reg_r with (exp u + 1 + r); [lra|].
    replace (C * 1 * ((exp u - 1) / (exp u + 1 + r)) * (exp u + 1 + r)) with (C * (exp u - 1)) by (field; lra).
    unfold spare_amount in *. lra. }
  replace (u - C * 1 * ((exp u - 1) / (exp u + 1 + r))) with (- past) by (unfold past; ring).
  replace (exp (- past / 2) + exp (- (- past / 2))) with (exp (past / 2) + exp (- (past / 2)))
    by (rewrite Rplus_comm; f_equal; f_equal; field).
  assert (0 < exp (u / 2)) by apply exp_pos.
  apply ln_increasing; [nra|].
  apply Rlt_le_trans with (exp ((u + delta) / 2) + exp (- ((u + delta) / 2))); [unfold gap_amount in *; lra|].
  destruct far as [farther|same].
  - left. apply exp_plus_inverse_increases; lra.
  - rewrite same. right. reflexivity.
Qed.

Theorem four_cannot_be_raised n_c C :
  (2 <= n_c)%nat -> 4 < C ->
  exists (eta : R) (W : matrix),
    0 <= eta /\
    (forall v, eta * quadratic_form 2 (feature_gram 1 same_feature one_hot) v <= C * INR 2 * square_norm 2 v) /\
    J_batch n_c 1 2 same_feature opposite_labels W
    < J_batch n_c 1 2 same_feature opposite_labels
        (step 1 eta W (gradient_batch n_c 1 2 same_feature opposite_labels W) one_hot).
Proof.
  intros several above. destruct n_c as [|[|n]]; [lia|lia|].
  destruct (rises_with_rest n C above) as [u [M rises]].
  exists C, (weights_with_rest u M). split; [lra|split; [|exact rises]].
  intros v. unfold quadratic_form, feature_gram, square_norm, same_feature, one_hot. simpl.
  assert (0 <= (v 0%nat - v 1%nat) * (v 0%nat - v 1%nat)) by apply Rle_0_sqr. nra.
Qed.
