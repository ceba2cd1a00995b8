(** Section 3.3, Convergence Theorem (Eq. 7): one instance, and the exact condition for J(W') ≤ J(W).

    In words: the step moves the logits to f' = f − η (zᵀPz) (softmax(f) − e_i). Where zᵀPz ≥ 0 every margin f_i − f_j
    grows or stays, so the loss falls or stays, however large η is; where zᵀPz < 0 every margin shrinks and the loss
    rises. The sign of zᵀPz decides, and nothing else about P matters. *)

From Coq Require Import Reals Lra Lia Arith.
From KernelSGD Require Import Definitions LogSumExp.
Open Scope R_scope.

(** The logits of any features z after a step along any G: f'_j = f_j − η (G P z)_j. *)
Lemma logits_of_step d_in eta W G P z j :
  logits d_in (step d_in eta W G P) z j = logits d_in W z j - eta * (Σ b < d_in, Σ a < d_in, G j b * P b a * z a).
Proof.
  unfold logits, step. rewrite sum_swap, <- sum_scale, <- sum_minus. apply sum_ext; intros a _.
  rewrite sum_scale_right. ring.
Qed.

(** f' = f − η (zᵀPz) (softmax(f) − e_i). *)
Lemma logits_after_step n_c d_in z i W eta P j :
  logits d_in (step d_in eta W (gradient n_c d_in z i W) P) z j
  = logits d_in W z j - eta * quadratic_form d_in P z * residual n_c (logits d_in W z) i j.
Proof.
  rewrite logits_of_step, Rmult_assoc. do 2 f_equal. unfold quadratic_form.
  rewrite <- sum_scale_right. apply sum_ext; intros b _. rewrite <- sum_scale_right. apply sum_ext; intros a _.
  unfold gradient. ring.
Qed.

(** softmax(f) − e_i is negative at the label and positive elsewhere. *)
Lemma residual_label n_c f i : (i < n_c)%nat -> residual n_c f i i <= 0.
Proof.
  intros label. unfold residual. rewrite one_hot_same.
  assert (softmax n_c f i <= 1) by (apply softmax_le_1; assumption). lra.
Qed.

Lemma residual_other n_c f i j : (0 < n_c)%nat -> i <> j -> 0 < residual n_c f i j.
Proof.
  intros some differ. unfold residual. rewrite one_hot_other by assumption.
  assert (0 < softmax n_c f j) by (apply softmax_pos; assumption). lra.
Qed.

Theorem margins_grow n_c d_in z i j W eta P :
  (i < n_c)%nat -> 0 <= eta -> 0 <= quadratic_form d_in P z ->
  let f := logits d_in W z in
  let f' := logits d_in (step d_in eta W (gradient n_c d_in z i W) P) z in
  f i - f j <= f' i - f' j.
Proof.
  intros label eta_nonneg q_nonneg f f'. unfold f'. rewrite !logits_after_step. fold f.
  assert (s_nonneg : 0 <= eta * quadratic_form d_in P z) by (apply Rmult_le_pos; assumption).
  destruct (Nat.eq_dec i j) as [->|differ]; [lra|].
  assert (residual n_c f i i <= 0) by (apply residual_label; assumption).
  assert (0 < residual n_c f i j) by (apply residual_other; [lia|assumption]).
  nra.
Qed.

(** Eq. 6 in margins: J = ln Σ_j exp(−(f_i − f_j)). *)
Lemma cross_entropy_of_margins n_c f i :
  (0 < n_c)%nat -> cross_entropy n_c f i = ln (Σ j < n_c, exp (- (f i - f j))).
Proof.
  intros some. unfold cross_entropy.
  rewrite (sum_ext n_c (fun j => exp (- (f i - f j))) (fun j => exp (- f i) * exp (f j))).
  - rewrite sum_scale, ln_mult, ln_exp by (apply exp_pos || (apply sum_exp_pos; assumption)). reflexivity.
  - intros j _. rewrite <- exp_plus. f_equal. ring.
Qed.

Lemma exp_le x y : x <= y -> exp x <= exp y.
Proof. intros [less| ->]; [left; apply exp_increasing; assumption|right; reflexivity]. Qed.

Lemma ln_le x y : 0 < x -> x <= y -> ln x <= ln y.
Proof. intros pos [less| ->]; [left; apply ln_increasing; assumption|right; reflexivity]. Qed.

Lemma larger_margins_lower_loss n_c f f' i :
  (0 < n_c)%nat -> (forall j, (j < n_c)%nat -> f i - f j <= f' i - f' j) ->
  cross_entropy n_c f' i <= cross_entropy n_c f i.
Proof.
  intros some larger. rewrite !cross_entropy_of_margins by assumption. apply ln_le.
  - apply sum_exp_pos with (f := fun j => - (f' i - f' j)). assumption.
  - apply sum_le; intros j inside. apply exp_le. specialize (larger j inside). lra.
Qed.

Lemma larger_margins_strictly_lower_loss n_c f f' i :
  (forall j, (j < n_c)%nat -> f i - f j <= f' i - f' j) ->
  (exists j, (j < n_c)%nat /\ f i - f j < f' i - f' j) ->
  cross_entropy n_c f' i < cross_entropy n_c f i.
Proof.
  intros larger [k [inside strictly]]. rewrite !cross_entropy_of_margins by lia. apply ln_increasing.
  - apply sum_exp_pos with (f := fun j => - (f' i - f' j)). lia.
  - apply sum_lt.
    + intros j below. apply exp_le. specialize (larger j below). lra.
    + exists k. split; [assumption|]. apply exp_increasing. lra.
Qed.

(** J as a function of s = η zᵀPz: it falls for s > 0 and rises for s < 0. *)
Lemma loss_against_sign n_c f i s :
  (2 <= n_c)%nat -> (i < n_c)%nat ->
  (0 < s -> cross_entropy n_c (fun j => f j - s * residual n_c f i j) i < cross_entropy n_c f i) /\
  (s < 0 -> cross_entropy n_c f i < cross_entropy n_c (fun j => f j - s * residual n_c f i j) i).
Proof.
  intros several label.
  assert (at_label : residual n_c f i i <= 0) by (apply residual_label; assumption).
  assert (elsewhere : forall j, i <> j -> 0 < residual n_c f i j)
    by (intros; apply residual_other; [lia|assumption]).
  assert (another : exists j, (j < n_c)%nat /\ i <> j).
  { destruct (Nat.eq_dec i 0) as [->|later]; [exists 1%nat|exists 0%nat]; lia. }
  destruct another as [k [inside differ]].
  split; intros sign; apply larger_margins_strictly_lower_loss.
  - intros j _. destruct (Nat.eq_dec i j) as [->|other]; [lra|]. specialize (elsewhere j other). nra.
  - exists k. split; [assumption|]. specialize (elsewhere k differ). nra.
  - intros j _. destruct (Nat.eq_dec i j) as [->|other]; [lra|]. specialize (elsewhere j other). nra.
  - exists k. split; [assumption|]. specialize (elsewhere k differ). nra.
Qed.

Lemma cross_entropy_ext n_c f g i :
  (i < n_c)%nat -> (forall j, (j < n_c)%nat -> f j = g j) -> cross_entropy n_c f i = cross_entropy n_c g i.
Proof.
  intros label same. unfold cross_entropy. rewrite same by assumption. do 2 f_equal.
  apply sum_ext; intros. rewrite same by assumption. reflexivity.
Qed.

Lemma loss_after_step n_c d_in z i W eta P :
  (i < n_c)%nat ->
  let f := logits d_in W z in
  J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) P)
  = cross_entropy n_c (fun j => f j - eta * quadratic_form d_in P z * residual n_c f i j) i.
Proof.
  intros label f. apply cross_entropy_ext; [assumption|]. intros. apply logits_after_step.
Qed.

(** Eq. 7 as the paper's proof uses it: no step can be too large. *)
Theorem one_instance_any_step n_c d_in z i W eta P :
  (i < n_c)%nat -> 0 <= eta -> 0 <= quadratic_form d_in P z ->
  J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) P) <= J n_c d_in z i W.
Proof.
  intros label eta_nonneg q_nonneg. apply larger_margins_lower_loss; [lia|].
  intros j _. apply margins_grow; assumption.
Qed.

(** Eq. 7 with its exact condition, at one W and one η. *)
Theorem one_instance n_c d_in z i W eta P :
  (2 <= n_c)%nat -> (i < n_c)%nat -> 0 < eta ->
  (J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) P) <= J n_c d_in z i W
   <-> 0 <= quadratic_form d_in P z).
Proof.
  intros several label eta_pos. split.
  - intros no_rise. apply Rnot_lt_le. intros negative.
    rewrite loss_after_step in no_rise by assumption.
    destruct (loss_against_sign n_c (logits d_in W z) i (eta * quadratic_form d_in P z) several label) as [_ rises].
    unfold J in no_rise. apply (Rlt_not_le _ _ (rises ltac:(nra))). assumption.
  - intros q_nonneg. apply one_instance_any_step; [assumption|lra|assumption].
Qed.

(** The loss falls strictly exactly where zᵀPz > 0: a singular P may leave it where it was. *)
Theorem one_instance_strict n_c d_in z i W eta P :
  (2 <= n_c)%nat -> (i < n_c)%nat -> 0 < eta ->
  (J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) P) < J n_c d_in z i W
   <-> 0 < quadratic_form d_in P z).
Proof.
  intros several label eta_pos. rewrite loss_after_step by assumption. unfold J.
  set (f := logits d_in W z). set (s := eta * quadratic_form d_in P z).
  destruct (loss_against_sign n_c f i s several label) as [falls rises].
  destruct (Rtotal_order (quadratic_form d_in P z) 0) as [negative|[zero|positive]].
  - assert (s < 0) by (unfold s; nra). specialize (rises ltac:(assumption)). split; intros; lra.
  - assert (no_step : s = 0) by (unfold s; rewrite zero; ring).
    rewrite (cross_entropy_ext n_c _ f i label) by (intros; rewrite no_step; ring). split; intros; lra.
  - assert (0 < s) by (unfold s; nra). specialize (falls ltac:(assumption)). split; intros; assumption.
Qed.

(** Eq. 7 for all W, labels and learning rates at once. *)
Theorem convergence_theorem n_c d_in z P :
  (2 <= n_c)%nat ->
  ((forall W i eta, (i < n_c)%nat -> 0 <= eta ->
      J n_c d_in z i (step d_in eta W (gradient n_c d_in z i W) P) <= J n_c d_in z i W)
   <-> 0 <= quadratic_form d_in P z).
Proof.
  intros several. split.
  - intros never_rises. apply (one_instance n_c d_in z 0 (fun _ _ => 0) 1 P); [assumption|lia|lra|].
    apply never_rises; [lia|lra].
  - intros. apply one_instance_any_step; assumption.
Qed.
