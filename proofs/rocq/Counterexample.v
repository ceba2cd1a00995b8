(** The Convergence Theorem is false for mini-batches: "the loss decreases or stays unchanged" (Section 3.3) fails for
    every learning rate and every γ of the paper's grid {0.1, 0.01, 0.001, 0.0001}, at one W and one mini-batch.

    Two instances (m = 2) of the two classes, with the raw inputs 0 and 1/100 and the same feature z = 1 (d_in = 1).
    The mean loss is even in u = W_0 − W_1, and one step takes u to u − η P tanh(u/2): so far past the minimum 0
    that |u| grows. P is the reshaped inverse of the RBF matrix, 1 / (1 − exp(−2γ·10⁻⁴)), and larger than 5000/γ. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions OneInstance Reshape.
Open Scope R_scope.

Definition same_feature : matrix := fun _ _ => 1.
Definition opposite_labels : nat -> nat := fun k => k.

(** W with the rows u and 0. *)
Definition weights (u : R) : matrix := fun j _ => match j with O => u | _ => 0 end.

(** (ln(1 + e^−v) + ln(1 + e^v)) / 2: the mean loss in v = W_0 − W_1. *)
Definition two_sided_loss (v : R) : R := (ln (1 + exp (- v)) + ln (1 + exp v)) / 2.

Lemma J_batch_two_sided W :
  J_batch 2 1 2 same_feature opposite_labels W = two_sided_loss (W 0%nat 0%nat - W 1%nat 0%nat).
Proof.
  unfold J_batch, J, two_sided_loss.
  replace (INR 2) with 2 by (simpl; ring). simpl.
  rewrite !cross_entropy_of_margins by lia.
  unfold logits, same_feature, opposite_labels. simpl.
  f_equal. rewrite Rplus_0_l. f_equal; f_equal; rewrite Rplus_0_l.
  - f_equal; [rewrite <- exp_0|]; f_equal; ring.
  - rewrite Rplus_comm. f_equal; [rewrite <- exp_0|]; f_equal; ring.
Qed.

(** e^v + e^−v grows with v > 0. *)
Lemma exp_plus_inverse_increases u v : 0 < u -> u < v -> exp u + exp (- u) < exp v + exp (- v).
Proof.
  intros u_pos larger. rewrite !exp_Ropp.
  assert (1 < exp u) by (rewrite <- exp_0; apply exp_increasing; assumption).
  assert (above : exp u < exp v) by (apply exp_increasing; assumption).
  assert (exp u <> 0) by lra. assert (exp v <> 0) by lra.
  replace (exp v + / exp v) with (exp u + / exp u + (exp v - exp u) * (1 - / (exp u * exp v))) by (field; lra).
  assert (/ (exp u * exp v) < 1) by (rewrite <- Rinv_1; apply Rinv_lt_contravar; nra). nra.
Qed.

(** The mean loss is ln((1 + e^−v)(1 + e^v)) / 2 = ln(2 + e^v + e^−v) / 2. *)
Lemma two_sided_loss_increases u v : 0 < u -> u < v -> two_sided_loss u < two_sided_loss v.
Proof.
  intros u_pos larger.
  assert (one_log : forall w, two_sided_loss w = ln (2 + (exp w + exp (- w))) / 2).
  { intros w. assert (0 < exp w) by apply exp_pos. assert (0 < exp (- w)) by apply exp_pos.
    unfold two_sided_loss. rewrite <- ln_mult by lra. do 2 f_equal. rewrite exp_Ropp. field. lra. }
  assert (grow := exp_plus_inverse_increases u v u_pos larger).
  assert (0 < exp u) by apply exp_pos. assert (0 < exp (- u)) by apply exp_pos.
  rewrite !one_log. apply Rmult_lt_compat_r; [lra|]. apply ln_increasing; lra.
Qed.

Lemma two_sided_loss_even v : two_sided_loss (- v) = two_sided_loss v.
Proof. unfold two_sided_loss. rewrite Ropp_involutive. rewrite Rplus_comm. reflexivity. Qed.

(** u' = u − η P (e^u − 1)/(e^u + 1). *)
Lemma difference_after_step u eta P :
  let W' := step 1 eta (weights u) (gradient_batch 2 1 2 same_feature opposite_labels (weights u)) P in
  W' 0%nat 0%nat - W' 1%nat 0%nat = u - eta * P 0%nat 0%nat * ((exp u - 1) / (exp u + 1)).
Proof.
  assert (0 < exp u) by apply exp_pos.
  unfold step, gradient_batch, gradient, residual, softmax, logits, same_feature, opposite_labels, weights, one_hot.
  replace (INR 2) with 2 by (simpl; ring). simpl.
  rewrite !Rmult_1_r, !Rplus_0_l, exp_0. field. lra.
Qed.

(** The step overshoots where η P (e^u − 1) > 2u (e^u + 1). *)
Lemma overshoots u eta P :
  0 < u -> 2 * u * (exp u + 1) < eta * P 0%nat 0%nat * (exp u - 1) ->
  J_batch 2 1 2 same_feature opposite_labels (weights u)
  < J_batch 2 1 2 same_feature opposite_labels
      (step 1 eta (weights u) (gradient_batch 2 1 2 same_feature opposite_labels (weights u)) P).
Proof.
  intros u_pos far. rewrite !J_batch_two_sided, difference_after_step.
  replace (weights u 0%nat 0%nat - weights u 1%nat 0%nat) with u by (simpl; ring).
  rewrite <- (two_sided_loss_even (u - _)). apply two_sided_loss_increases; [assumption|].
  assert (0 < exp u) by apply exp_pos.
  assert (2 * u < eta * P 0%nat 0%nat * ((exp u - 1) / (exp u + 1))); [|lra].
  apply Rmult_lt_reg_r with (exp u + 1); [lra|].
  replace (eta * P 0%nat 0%nat * ((exp u - 1) / (exp u + 1)) * (exp u + 1))
    with (eta * P 0%nat 0%nat * (exp u - 1)) by (field; lra).
  assumption.
Qed.

(** For these instances λ_max(Z P Zᵀ / m) = P; wherever η P exceeds 4, u = (η P − 4)/2 overshoots. *)
Lemma above_four_overshoots eta P C :
  4 < C -> C <= eta * P 0%nat 0%nat ->
  let u := (C - 4) / 2 in
  J_batch 2 1 2 same_feature opposite_labels (weights u)
  < J_batch 2 1 2 same_feature opposite_labels
      (step 1 eta (weights u) (gradient_batch 2 1 2 same_feature opposite_labels (weights u)) P).
Proof.
  intros above large u. apply overshoots; [unfold u; lra|].
  assert (u_pos : 0 < u) by (unfold u; lra).
  assert (1 + u < exp u) by (apply exp_ineq1; lra).
  apply Rlt_le_trans with (C * (exp u - 1)); [|apply Rmult_le_compat_r; lra].
  replace C with (4 + 2 * u) by (unfold u; field). nra.
Qed.

(** The raw inputs 0 and 1/100. *)
Definition close_inputs : matrix := fun k _ => INR k / 100.

Definition H (gamma : R) : matrix := rbf_gram gamma 1 close_inputs.

Lemma H_diagonal gamma k : H gamma k k = 1.
Proof.
  unfold H, rbf_gram, square_norm. simpl. rewrite <- exp_0. f_equal. ring.
Qed.

Lemma H_off_diagonal gamma : H gamma 0%nat 1%nat = exp (- gamma / 10000) /\ H gamma 1%nat 0%nat = exp (- gamma / 10000).
Proof. unfold H, rbf_gram, square_norm, close_inputs. simpl. split; f_equal; field. Qed.

(** H has an inverse, so that the theorem below speaks of something. *)
Lemma H_invertible gamma : 0 < gamma -> exists X, inverse 2 (H gamma) X.
Proof.
  intros gamma_pos. destruct (H_off_diagonal gamma) as [upper lower].
  set (k := exp (- gamma / 10000)) in *.
  assert (0 < k) by apply exp_pos.
  assert (k < 1) by (unfold k; rewrite <- exp_0; apply exp_increasing; lra).
  exists (fun a b => match a, b with O, O => / (1 - k * k) | O, _ => - k / (1 - k * k)
                                   | _, O => - k / (1 - k * k) | _, _ => / (1 - k * k) end).
  intros a b row column. simpl.
  destruct a as [|[|a]]; destruct b as [|[|b]]; try lia;
    rewrite ?H_diagonal, ?upper, ?lower; unfold one_hot; simpl; field; nra.
Qed.

(** The entry of the inverse that the reshaping keeps: 1/(1 − H_01²), at least 5000/γ. *)
Lemma kept_entry gamma X :
  0 < gamma -> inverse 2 (H gamma) X -> 5000 / gamma <= X 0%nat 0%nat.
Proof.
  intros gamma_pos identity. destruct (H_off_diagonal gamma) as [upper lower].
  set (k := exp (- gamma / 10000)) in *.
  assert (first := identity 0%nat 0%nat ltac:(lia) ltac:(lia)).
  assert (second := identity 1%nat 0%nat ltac:(lia) ltac:(lia)).
  simpl in first, second. rewrite H_diagonal, upper in first. rewrite H_diagonal, lower in second.
  unfold one_hot in first, second. simpl in first, second.
  assert (0 < k) by apply exp_pos.
  assert (k_below : k < 1) by (unfold k; rewrite <- exp_0; apply exp_increasing; lra).
  assert (k_above : 1 - gamma / 10000 <= k).
  { unfold k. apply Rle_trans with (1 + - gamma / 10000); [lra|]. left. apply exp_ineq1. lra. }
  assert (lower_entry : X 1%nat 0%nat = - k * X 0%nat 0%nat) by lra.
  assert (solved : X 0%nat 0%nat * (1 - k * k) = 1) by (rewrite lower_entry in first; lra).
  assert (gap : 1 - k * k <= gamma / 5000) by nra.
  assert (gap_pos : 0 < 1 - k * k) by nra.
  assert (0 < X 0%nat 0%nat) by nra.
  apply Rmult_le_reg_r with (gamma / 5000); [lra|].
  replace (5000 / gamma * (gamma / 5000)) with 1 by (field; lra). nra.
Qed.

Theorem loss_rises_on_the_whole_grid eta gamma X :
  / 10000 <= eta -> 0 < gamma <= / 10 -> inverse 2 (H gamma) X ->
  let W := weights (/ 2) in
  let G := gradient_batch 2 1 2 same_feature opposite_labels W in
  J_batch 2 1 2 same_feature opposite_labels W
  < J_batch 2 1 2 same_feature opposite_labels (step 1 eta W G (reshape 2 1 X)).
Proof.
  intros eta_large [gamma_pos gamma_small] identity.
  assert (kept := kept_entry gamma X gamma_pos identity).
  replace (/ 2) with ((5 - 4) / 2) by field.
  apply above_four_overshoots; [lra|].
  rewrite reshape_inside by (simpl; lia).
  assert (50000 <= 5000 / gamma).
  { apply Rmult_le_reg_r with gamma; [assumption|].
    replace (5000 / gamma * gamma) with 5000 by (field; lra). lra. }
  nra.
Qed.
